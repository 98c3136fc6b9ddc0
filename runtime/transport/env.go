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
	Sessions       Sessions      // nil means sessions of clients alone, in memory

	// Listeners has sockets for endpoints "!name", by name.
	Listeners map[string]net.Listener

	// DialContext makes network connections. Nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Transport returns the transport of a protocol, or nil.
	Transport func(policy.Protocol) Transport

	// Wake gets the earliest time to wake the system for. It may be nil.
	Wake func(at time.Time)
}

// An Env is the environment that the transports of one context share. Its address
// identifies the context, and so can be part of the key of a connection pool. Its
// methods may be called from any goroutine.
type Env struct {
	config Config
	life   context.Context    // done when Close is called
	end    context.CancelFunc // of life
	dials  context.Context    // done when StopDials is called
	stop   context.CancelFunc // of dials
	timers *timers.Timers
	trust  trustCache
	dialed connSet

	open        sync.Map // Listeners of streams, by the name of the streamtype
	ineffective sync.Map // attributes that have been logged to have no effect

	proxies struct {
		sync.Mutex
		m map[string]*Proxy // by the text in the policy
	}
}

// A Host makes an Env and its setups, and ends them. It is for package runtime, and
// for tests of transports; a transport never sees it.
type Host struct{ *Env }

// NewHost returns a host with a new environment, which ends with Close and Release.
func NewHost(c Config) Host {
	if c.Logger == nil {
		c.Logger = stdLogger{}
	}
	e := &Env{config: c, timers: timers.New(c.Wake)}
	e.life, e.end = context.WithCancel(context.Background())
	e.dials, e.stop = context.WithCancel(context.Background())
	return Host{e}
}

// Timers returns the timers of the context.
func (h Host) Timers() *timers.Timers { return h.timers }

// Close makes Closing done.
func (h Host) Close() { h.end() }

// StopDials cancels the dials that attempts have left behind, without waiting for
// them. It is called when no stream is left: an attempt must not fail because its
// context closes.
func (h Host) StopDials() { h.stop() }

// Release cancels dials, closes the connections that are still open and stops the timers.
// It waits up to 5 s for that. It is called once, after the Close of every connector.
func (h Host) Release() {
	h.stop()
	h.dialed.close()
	h.timers.Close()
}

// Opened makes a listener joinable under the name of its streamtype, unless another one
// has it. The result must be called before the listener is closed.
func (h Host) Opened(name string, l Listener) (closed func()) {
	if _, has := h.open.LoadOrStore(name, l); has {
		return func() {}
	}
	return func() { h.open.CompareAndDelete(name, l) }
}

// Setup returns the setup of a streamtype. The error wraps ErrEndpoint if the
// streamtype's proxy cannot be parsed.
func (h Host) Setup(st *policy.StreamType, chain []*policy.StreamType) (*Setup, error) {
	d, err := h.Dialer(st)
	if err != nil {
		return nil, err
	}
	return &Setup{Env: h.Env, Stream: st, Chain: chain, Dialer: d}, nil
}

// Drop ends a setup's use of its trust store, after the Close of its connector.
func (h Host) Drop(s *Setup) { h.trust.release(s) }

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

// Watch is [Env.Watch] with svalidping, svalidhup and swake_validity of the
// streamtype.
func (s *Setup) Watch(probe, end func()) *Validity {
	ping, hangup := s.Stream.Validity()
	return s.Env.Watch(ping, hangup, s.Stream.SwakeValidity, probe, end)
}
