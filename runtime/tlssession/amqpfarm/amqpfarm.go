// Package amqpfarm shares TLS sessions and ticket keys through RabbitMQ, or another
// broker of AMQP 0-9-1.
package amqpfarm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/secure-streams/sspolicy/runtime/tlssession/farm"
)

// maxQueue is the number of messages that the broker keeps for a slow member. It
// drops the oldest.
const maxQueue = 10_000

// heartbeat is the interval at which broker and member check the connection.
const heartbeat = 5 * time.Second

// New returns a bus of the farm with that name. dial makes a connection; nil means
// amqp.DialConfig with the URL. The bus has one connection at a time.
//
// The exchange of the farm is a fanout, and each member has a queue of its own that
// the broker deletes with the connection. Nothing is durable.
func New(url, name string, dial func(url string, config amqp.Config) (*amqp.Connection, error)) farm.Bus {
	if dial == nil {
		dial = amqp.DialConfig
	}
	return &bus{url: url, exchange: "sspolicy.tlssession." + name, dial: dial}
}

type bus struct {
	url, exchange string
	dial          func(string, amqp.Config) (*amqp.Connection, error)

	mu      sync.Mutex // held while a message is published
	channel *amqp.Channel
}

// errDown is returned by Publish without a connection.
var errDown = errors.New("sspolicy: amqpfarm: not connected")

func (b *bus) Publish(ctx context.Context, message []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.channel == nil {
		return errDown
	}
	c, err := b.channel.PublishWithDeferredConfirmWithContext(ctx, b.exchange, "", false, false, amqp.Publishing{ContentType: "application/octet-stream", Body: message})
	if err != nil {
		return fmt.Errorf("sspolicy: amqpfarm: %w", err)
	}
	switch ok, err := c.WaitContext(ctx); {
	case err != nil:
		return fmt.Errorf("sspolicy: amqpfarm: %w", err)
	case !ok:
		return errors.New("sspolicy: amqpfarm: the broker refused a message")
	}
	return nil
}

func (b *bus) Subscribe(ctx context.Context, ready func(), receive func([]byte)) error {
	err := b.subscribe(ctx, ready, receive)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("sspolicy: amqpfarm: %w", err)
}

func (b *bus) subscribe(ctx context.Context, ready func(), receive func([]byte)) error {
	conn, err := b.dial(b.url, amqp.Config{Heartbeat: heartbeat, Locale: "en_US"})
	if err != nil {
		return err
	}
	defer conn.CloseDeadline(time.Now().Add(time.Second))
	stop := context.AfterFunc(ctx, func() { conn.CloseDeadline(time.Now().Add(time.Second)) })
	defer stop()
	in, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := in.ExchangeDeclare(b.exchange, amqp.ExchangeFanout, false, true, false, false, nil); err != nil {
		return err
	}
	q, err := in.QueueDeclare("", false, true, true, false, amqp.Table{"x-max-length": int32(maxQueue), "x-overflow": "drop-head"})
	if err != nil {
		return err
	}
	if err := in.QueueBind(q.Name, "", b.exchange, false, nil); err != nil {
		return err
	}
	messages, err := in.ConsumeWithContext(ctx, q.Name, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	lost := conn.NotifyClose(make(chan *amqp.Error, 1))
	out, err := conn.Channel()
	if err == nil {
		err = out.Confirm(false)
	}
	if err != nil {
		return err
	}
	b.set(out)
	defer b.set(nil)
	ready()
	for m := range messages {
		receive(m.Body)
	}
	select {
	case err := <-lost:
		if err != nil {
			return err
		}
	default:
	}
	return errors.New("the connection was closed")
}

func (b *bus) set(c *amqp.Channel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.channel = c
}
