package transport

import (
	"context"
	"math"
	"net"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/timers"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Config is what an Env is made of. Package runtime describes the fields in its
// Options. Limits of 0 mean none.
type Config struct {
	Logger         Logger
	ConnectTimeout time.Duration
	Credentials    Credentials
	Cookies        CookieJar
	DialContext    func(ctx context.Context, network, address string) (net.Conn, error)
	Wake           func(time.Time)
}

// An Env is the environment of the transports of one context. Its address tells
// contexts apart, and so can be part of the key of a connection pool. Its methods
// may be called from any goroutine.
type Env struct {
	config Config
	life   context.Context // done once the context closes
	end    context.CancelFunc
	timers *timers.Timers
	trust  trustCache
	dialed dialed

	ineffective sync.Map // attributes that are known to have no effect

	proxies struct {
		sync.Mutex
		m map[string]*Proxy // by the text in the policy
	}
}

// NewEnv returns an environment. Package runtime makes one for each context;
// tests of transports may make their own.
func NewEnv(c Config) *Env {
	if c.Logger == nil {
		c.Logger = stdLogger{}
	}
	e := &Env{config: c, timers: timers.New(c.Wake)}
	e.life, e.end = context.WithCancel(context.Background())
	return e
}

// Timers returns the timers of the context, for package runtime.
func (e *Env) Timers() *timers.Timers { return e.timers }

// Logger returns the logger of the context, never nil.
func (e *Env) Logger() Logger { return e.config.Logger }

// CookieJar returns the jar of the context, or nil.
func (e *Env) CookieJar() CookieJar { return e.config.Cookies }

// ConnectTimeout returns the limit of an attempt; 0 means none.
func (e *Env) ConnectTimeout() time.Duration { return max(e.config.ConnectTimeout, 0) }

// DialTimeout returns how long a dial may continue after the attempt that wanted
// it has given up; 0 means without limit. It exceeds ConnectTimeout by more than
// the clocks of a busy machine are late, so that an attempt ends by its own limit.
func (e *Env) DialTimeout() time.Duration {
	limit := e.ConnectTimeout()
	if limit == 0 {
		return 0
	}
	return limit + min(limit/4+time.Second, math.MaxInt64-limit)
}

// Closing returns a context that is done when the runtime's context closes.
func (e *Env) Closing() context.Context { return e.life }

// Close begins the end: dials stop.
func (e *Env) Close() { e.end() }

// Release closes what is left, after the last connector has been closed.
func (e *Env) Release() {
	e.dialed.close()
	e.timers.Close()
}

// A Setup is everything about a streamtype that stays the same from attempt to
// attempt.
type Setup struct {
	*Env

	// Stream is the streamtype, with what it inherits from the policy.
	Stream *policy.StreamType

	// Chain is the streamtypes whose messages make up one request: Stream, and
	// those that follow by rideshare.
	Chain []*policy.StreamType

	// Dialer makes the network connections of the streamtype.
	Dialer Dialer

	trust *trust // guarded by the mu of the trustCache; nil until it is used
}

// Setup prepares a streamtype. An error wraps ErrEndpoint.
func (e *Env) Setup(st *policy.StreamType, chain []*policy.StreamType) (*Setup, error) {
	d, err := e.Dialer(st)
	if err != nil {
		return nil, err
	}
	return &Setup{Env: e, Stream: st, Chain: chain, Dialer: d}, nil
}

// Release gives up what the setup has kept, after its connector has been closed.
func (s *Setup) Release() { s.Env.trust.release(s) }

// Watch is Env.Watch with the times of the streamtype.
func (s *Setup) Watch(probe, end func()) *Validity {
	ping, hangup := s.Stream.Validity()
	return s.Env.Watch(ping, hangup, s.Stream.SwakeValidity, probe, end)
}
