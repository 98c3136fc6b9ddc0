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

// Config holds the settings of an Env, which runtime.Options describes. The zero
// value is ready for use.
type Config struct {
	Logger         Logger        // nil means the standard logger of package log
	ConnectTimeout time.Duration // 0 or less means no limit
	Credentials    Credentials   // nil means none
	Cookies        CookieJar     // nil means none

	// DialContext makes network connections. Nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Wake gets the earliest time to wake the system for. It may be nil.
	Wake func(at time.Time)
}

// An Env is the environment that the transports of one context share. Its address
// identifies the context, and so can be part of the key of a connection pool. Its
// methods may be called from any goroutine.
//
// Setup, CheckCredentials, Timers, Close and Release are for package runtime, and
// for tests of transports.
type Env struct {
	config Config
	life   context.Context    // done when Close is called
	end    context.CancelFunc // of life
	timers *timers.Timers
	trust  trustCache
	dialed connSet

	ineffective sync.Map // attributes that have been logged to have no effect

	proxies struct {
		sync.Mutex
		m map[string]*Proxy // by the text in the policy
	}
}

// NewEnv returns an environment, which ends with Close and Release.
func NewEnv(c Config) *Env {
	if c.Logger == nil {
		c.Logger = stdLogger{}
	}
	e := &Env{config: c, timers: timers.New(c.Wake)}
	e.life, e.end = context.WithCancel(context.Background())
	return e
}

// Timers returns the timers of the context.
func (e *Env) Timers() *timers.Timers { return e.timers }

// Logger returns the logger of the context, never nil.
func (e *Env) Logger() Logger { return e.config.Logger }

// CookieJar returns the jar of the context, or nil.
func (e *Env) CookieJar() CookieJar { return e.config.Cookies }

// ConnectTimeout returns how long an attempt may take until Link.Connected; 0 means
// no limit. The stream enforces it by the context of Run.
func (e *Env) ConnectTimeout() time.Duration { return max(e.config.ConnectTimeout, 0) }

// DialTimeout returns how long a dial may take, even if its attempt has ended; 0
// means no limit. It exceeds ConnectTimeout by more than a busy machine is late, so
// that an attempt ends by its own limit first.
func (e *Env) DialTimeout() time.Duration {
	limit := e.ConnectTimeout()
	if limit == 0 {
		return 0
	}
	return limit + min(limit/4+time.Second, math.MaxInt64-limit)
}

// Closing returns a context that is done when the context of the environment is
// closed.
func (e *Env) Closing() context.Context { return e.life }

// Close makes Closing done and cancels dials. It does not wait for them.
func (e *Env) Close() { e.end() }

// Release closes the connections that are still open and stops the timers. It is
// called once, after Close and the Close of every connector.
func (e *Env) Release() {
	e.dialed.close()
	e.timers.Close()
}

// A Setup is what the attempts of one streamtype have in common, and the services
// of the Env for it. It must not be modified. Its methods may be called from any
// goroutine.
type Setup struct {
	*Env

	// Stream is the streamtype, including what it inherits from the policy.
	Stream *policy.StreamType

	// Chain holds the streamtypes whose messages make up one request: Stream, and
	// those that follow it by rideshare.
	Chain []*policy.StreamType

	// Dialer makes the network connections of Stream.
	Dialer Dialer

	trust *trust // guarded by the mu of the trustCache; nil before the first TLS
}

// Setup returns the setup of a streamtype. The error wraps ErrEndpoint if the
// streamtype's proxy cannot be parsed.
func (e *Env) Setup(st *policy.StreamType, chain []*policy.StreamType) (*Setup, error) {
	d, err := e.Dialer(st)
	if err != nil {
		return nil, err
	}
	return &Setup{Env: e, Stream: st, Chain: chain, Dialer: d}, nil
}

// Release ends the setup's use of its trust store. Package runtime calls it after
// the Close of the connector.
func (s *Setup) Release() { s.Env.trust.release(s) }

// Watch is [Env.Watch] with svalidping, svalidhup and swake_validity of the
// streamtype.
func (s *Setup) Watch(probe, end func()) *Validity {
	ping, hangup := s.Stream.Validity()
	return s.Env.Watch(ping, hangup, s.Stream.SwakeValidity, probe, end)
}
