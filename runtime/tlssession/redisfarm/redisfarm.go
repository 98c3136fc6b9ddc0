// Package redisfarm shares TLS sessions, ticket keys and logins through Redis.
package redisfarm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/secure-streams/sspolicy/runtime/apilogin"
	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
)

// New returns a bus of the farm with that name, over the publish/subscribe messages
// of Redis, which stores nothing. The client may be one of a single server, of
// sentinels or of a cluster; the program must close it.
func New(client redis.UniversalClient, name string) farm.Bus {
	return &bus{client, "sspolicy:tlssession:" + name}
}

type bus struct {
	client  redis.UniversalClient
	channel string
}

func (b *bus) Publish(ctx context.Context, message []byte) error {
	if err := b.client.Publish(ctx, b.channel, message).Err(); err != nil {
		return fmt.Errorf("sspolicy: redisfarm: %w", err)
	}
	return nil
}

// pingEvery is how long Redis may be silent before Subscribe checks the connection.
const pingEvery = 5 * time.Second

func (b *bus) Subscribe(ctx context.Context, ready func(), receive func([]byte)) error {
	sub := b.client.Subscribe(ctx, b.channel)
	defer sub.Close()
	// ctx does not end a read.
	stop := context.AfterFunc(ctx, func() { sub.Close() })
	defer stop()
	pinged := false
	for joined := false; ; {
		m, err := sub.ReceiveTimeout(ctx, pingEvery)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && isTimeout(err) && joined && !pinged:
			pinged = true
			if err = sub.Ping(ctx); err != nil {
				return fmt.Errorf("sspolicy: redisfarm: %w", err)
			}
			continue
		case err != nil:
			return fmt.Errorf("sspolicy: redisfarm: %w", err)
		}
		pinged = false
		switch m := m.(type) {
		case *redis.Subscription:
			// A second one means that the client has reconnected: messages may be
			// lost.
			if joined {
				return errors.New("sspolicy: redisfarm: the connection was lost")
			}
			joined = true
			ready()
		case *redis.Message:
			receive([]byte(m.Payload))
		}
	}
}

// isTimeout reports whether nothing has arrived in time.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// NewStore returns a store of logins, under keys with that name. The program must
// close the client.
func NewStore(client redis.UniversalClient, name string) apilogin.Store {
	return &store{client, "sspolicy:apilogin:" + name + ":"}
}

type store struct {
	client redis.UniversalClient
	prefix string
}

func (s *store) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := s.client.Get(ctx, s.prefix+key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return value, err
}

func (s *store) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.client.Set(ctx, s.prefix+key, value, max(ttl, time.Millisecond)).Err()
}

func (s *store) Delete(ctx context.Context, key string) error {
	return s.client.Del(ctx, s.prefix+key).Err()
}
