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

// Config configures an [Env]; runtime.Options describes the fields. The zero value
// is ready to use.
type Config struct {
	Logger         Logger        // nil means the standard logger of package log
	ConnectTimeout time.Duration // 0 or negative means no limit
	Credentials    Credentials   // nil means none
	Cookies        CookieJar     // nil means none
	Sessions       Sessions      // nil means sessions of clients only, in memory

	// Listeners holds the sockets for endpoints of the form "!name", by name.
	Listeners map[string]net.Listener

	// DialContext makes network connections. Nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Transport returns the transport of a protocol, or nil.
	Transport func(policy.Protocol) Transport

	// Wake receives the earliest time to wake the system. It may be nil.
	Wake func(at time.Time)
}

// An Env is the environment that the transports of one context share. Its address
// identifies the context, so it can be part of the key of a connection pool. Its
// methods are safe for concurrent use.
type Env struct {
	config Config
	life   context.Context    // done when Close is called
	end    context.CancelFunc // of life
	dials  context.Context    // done when StopDials is called
	stop   context.CancelFunc // of dials
	timers *timers.Timers
	trust  trustCache
	dialed connSet

	open        sync.Map // Listeners of streams, by name of the streamtype
	ineffective sync.Map // attributes whose failure has been logged

	proxies struct {
		sync.Mutex
		m map[string]*Proxy // by the text in the policy
	}
}

// A Host makes an Env and its setups, and ends them. It is for package runtime, and
// for tests of transports; transports do not see it.
type Host struct{ *Env }

// NewHost returns a host with a new environment. Call Close and then Release to end
// it.
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

// Close ends the context that Closing returns.
func (h Host) Close() { h.end() }

// StopDials cancels the remaining dials of past attempts, without waiting for them.
// It is called when no stream is left, since an attempt must not fail because its
// context closes.
func (h Host) StopDials() { h.stop() }

// Release cancels dials, closes the remaining connections and stops the timers. It
// waits up to 5 s for that. It must be called once, after the Close of every
// connector.
func (h Host) Release() {
	h.stop()
	h.dialed.close()
	h.timers.Close()
}

// Opened makes a listener joinable under the name of its streamtype, unless that
// name is in use. Call closed before closing the listener.
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

// ConnectTimeout returns the time limit of an attempt until Link.Connected; 0 means
// no limit. The stream enforces it by the context of Run.
func (e *Env) ConnectTimeout() time.Duration { return max(e.config.ConnectTimeout, 0) }

// DialTimeout returns the time limit of a dial, which may outlast its attempt; 0
// means no limit. It exceeds ConnectTimeout by enough that even on a busy machine
// an attempt reaches its own limit first.
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

// A Setup holds what the attempts of one streamtype share, and the services of the
// Env for it. It must not be modified. Its methods are safe for concurrent use.
type Setup struct {
	*Env

	// Stream is the streamtype, with the settings that it inherits from the policy.
	Stream *policy.StreamType

	// Chain holds the streamtypes whose messages make up one request: Stream, and
	// those that follow it by rideshare.
	Chain []*policy.StreamType

	// Dialer makes the network connections of Stream.
	Dialer Dialer

	trust *trust // guarded by the mu of the trustCache; nil before the first TLS
}

// Watch calls [Env.Watch] with the streamtype's svalidping, svalidhup and
// swake_validity.
func (s *Setup) Watch(probe, end func()) *Validity {
	ping, hangup := s.Stream.Validity()
	return s.Env.Watch(ping, hangup, s.Stream.SwakeValidity, probe, end)
}
