package runtime

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// DefaultConnectTimeout is the default time limit for the peer to answer an
// attempt, as in lws.
const DefaultConnectTimeout = 15 * time.Second

// Options configure a context. The zero value is valid, but has no transports.
type Options struct {
	// Proxy executes all streams in place of Transports, which are then not needed.
	// Package runtime/sspc implements it for the Secure Streams proxies of lws and
	// of this module. The definition of a streamtype in the policy then describes
	// what the proxy does: its protocol, metadata and rideshares. A streamtype that
	// the policy does not have accepts any metadata.
	Proxy transport.Driver

	// Transports execute the streams. Each has its protocols; no two may have the
	// same.
	Transports []transport.Transport

	// Logger receives what cannot be returned to the program, such as an internal
	// error. Nil means the standard logger of package log.
	Logger Logger

	// ConnectTimeout limits the time of an attempt from CONNECTING to CONNECTED.
	// Sending part of a message restarts it, and it does not run while the peer
	// waits for the program to send. 0 means DefaultConnectTimeout; a negative
	// value means no limit.
	ConnectTimeout time.Duration

	// Credentials provides the tokens, keys, serial numbers and client certificates
	// that the policy requires. If it is nil, NewStream fails for a stream that
	// needs one.
	Credentials Credentials

	// Cookies keeps the cookies of streams whose policy sets http_cookies; New of
	// package runtime/cookies makes a jar. If it is nil, NewStream fails for such a
	// stream.
	Cookies CookieJar

	// Sessions keeps the TLS sessions of clients and servers, possibly beyond the
	// life of this context; Sessions of package runtime/tlssession implements it.
	// If it is nil, clients keep the last 10 sessions for each trust store and
	// client certificate.
	Sessions transport.Sessions

	// Listeners are the sockets for servers whose endpoint is "!" and the name of
	// one, for example from the service manager. The stream that uses a socket
	// closes it. A server whose name is not in Listeners joins the port of the
	// streamtype of that name.
	Listeners map[string]net.Listener

	// DialContext makes network connections. network is "tcp" or "unix"; address is
	// as for net.Dial. Nil means a net.Dialer. The attr_ keys of the policy need a
	// connection that is a syscall.Conn.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Hooks observe the streams, for metrics and traces.
	Hooks Hooks

	// Wake is for programs that put the system to sleep. It receives the earliest
	// time at which a stream whose policy sets swake_validity must retry or check
	// its connection, or the zero time if there is none. It is called whenever that
	// time changes; calls do not overlap. The program sets an alarm that wakes the
	// system, and then calls Context.Resumed. Wake may be nil.
	Wake func(at time.Time)

	// Jitter returns the random number that spreads retries, uniform over 0 to
	// 65535. It must be safe for concurrent use. It is called with a stream locked,
	// so it must not call methods of streams, and must not panic. Nil means
	// math/rand/v2.
	Jitter func() uint16
}

// A Context executes one policy. Its methods are safe for concurrent use, also from
// callbacks, except that [Context.Shutdown] must not be called from one.
type Context struct {
	registry
	engine engine
	opts   Options

	// Guarded by the mu of the registry.
	first  *Stream       // list of the streams not yet destroyed
	empty  *sync.Cond    // signals that first is nil
	ending bool          // Close has been called
	done   chan struct{} // closed when the context holds no more resources
}

// NewContext returns a context for the policy, which it keeps and never changes.
// The policy may be nil with Options.Proxy. NewContext opens nothing: a streamtype
// is prepared, and its errors are returned, with its first stream.
func NewContext(p *policy.Policy, o Options) (*Context, error) {
	switch {
	case p != nil:
	case o.Proxy != nil:
		p = new(policy.Policy)
	default:
		return nil, errors.New("sspolicy: NewContext: no policy")
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = DefaultConnectTimeout
	}
	if o.Jitter == nil {
		o.Jitter = func() uint16 { return uint16(rand.Uint32()) }
	}
	c := &Context{opts: o, done: make(chan struct{})}
	host := transport.NewHost(transport.Config{
		Listeners:      o.Listeners,
		Transport:      func(p policy.Protocol) transport.Transport { return c.transports[p] },
		Logger:         o.Logger,
		ConnectTimeout: o.ConnectTimeout,
		Credentials:    o.Credentials,
		Cookies:        o.Cookies,
		Sessions:       o.Sessions,
		DialContext:    o.DialContext,
		Wake:           o.Wake,
	})
	c.engine = engine{env: host.Env, timers: host.Timers(), log: host.Logger(), hooks: o.Hooks, jitter: o.Jitter, owner: c}
	c.host, c.driver = host, o.Proxy
	c.policy.Store(policy.NewIndex(p))
	c.empty = sync.NewCond(&c.mu)
	for _, t := range o.Transports {
		if err := c.registry.add(t); err != nil {
			return nil, fmt.Errorf("sspolicy: NewContext: %w", err)
		}
	}
	return c, nil
}

// Policy returns the current policy: the one of the latest SetPolicy or Overlay,
// else of NewContext.
func (c *Context) Policy() *policy.Policy { return c.policy.Load().Policy }

// String returns the release and product of the policy. String and GoString keep
// fmt from printing the contents of a context, such as passwords of proxies.
func (c *Context) String() string {
	p := c.Policy()
	return fmt.Sprintf("policy %q of product %q", p.Release, p.Product)
}

// GoString is like String, for %#v.
func (c *Context) GoString() string { return c.String() }

// Logger returns the logger of the context, never nil.
func (c *Context) Logger() Logger { return c.host.Logger() }

// Resumed reports that the system has slept for the duration asleep, which the
// clocks of a Go program do not count (on Linux, the gain of CLOCK_BOOTTIME over
// CLOCK_MONOTONIC). Timers that became due meanwhile expire at once.
func (c *Context) Resumed(asleep time.Duration) { c.host.Timers().Resumed(asleep) }

// NewStream makes a stream of the named type. Before it returns, the State callback
// receives CREATING. If the stream connects at once, because the policy sets
// nailed_up or because the callback calls Connect or RequestTx, it also receives
// POLL (after RequestTx) and CONNECTING; a stream without a network also CONNECTED.
// If the callback answers one of them with DestroyMe, the stream is destroyed and
// the error is ErrRefused.
//
// Other errors are ErrClosed; ErrUnknownStreamType; ErrNoTransport;
// ErrPolicyChanged, if the policy is replaced meanwhile; errors of the transport
// packages; and those about what in the streamtype cannot be executed:
// ErrUnsupported, ErrNoCredentials, ErrTemplate, ErrEndpoint, ErrUnknownMetadata.
func (c *Context) NewStream(streamtype string, h Handlers, options ...StreamOption) (*Stream, error) {
	s, err := c.newStream(streamtype, h, options)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: new stream %q: %w", streamtype, err)
	}
	return s, nil
}

func (c *Context) newStream(streamtype string, h Handlers, options []StreamOption) (*Stream, error) {
	var s *Stream
	for added := false; !added; { // repeat if the policy changes meanwhile
		t, err := c.join(streamtype)
		if err != nil {
			return nil, err
		}
		s = &Stream{e: &c.engine, t: t, h: h, busy: true}
		s.machine.Type = t.stream
		if t.remote != nil {
			s.machine.Remote, s.remote = true, &remote{created: time.Now()}
		} else if t.stream.Server {
			s.machine.Listener, s.role = true, new(role)
		}
		if err := s.apply(options); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.leaveLocked(t)
			return nil, err
		}
		if added, err = c.enter(s); err != nil {
			return nil, err
		}
	}
	if s.role != nil {
		if err := s.listen(c); err != nil {
			return nil, err
		}
	} else if err := s.admit(); err != nil {
		return nil, err
	}
	switch {
	case s.create():
		if s.role != nil {
			s.role.port.serve()
		}
		return s, nil
	case c.host.Closing().Err() != nil:
		return nil, ErrClosed
	case s.Err() == ErrPolicyChanged:
		return nil, ErrPolicyChanged
	}
	return nil, ErrRefused
}

// apply applies options to a new stream.
func (s *Stream) apply(options []StreamOption) error {
	for _, o := range options {
		var err error
		switch o := o.(type) {
		case MetadataOption:
			err = s.SetAll(o)
		case streamOption:
			o(&s.settings)
		case listenOption:
			if s.role == nil {
				return fmt.Errorf("%w: an option for servers", ErrUnsupported)
			}
			o(s.listenSettings())
		case transport.Option:
			if s.role != nil {
				l := s.listenSettings()
				l.options = append(l.options, o)
				continue
			}
			if s.remote != nil {
				return fmt.Errorf("%w: an option for %v with a proxy", ErrUnsupported, o.Protocol)
			}
			if p := s.t.stream.Carrier(); p != o.Protocol {
				return fmt.Errorf("%w: an option for %v with a streamtype of %v", ErrUnsupported, o.Protocol, p)
			}
			s.attach(o)
		default:
			err = fmt.Errorf("%w: an option of type %T", ErrUnsupported, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listenSettings returns the options of a listener, for modification.
func (s *Stream) listenSettings() *listenSettings {
	if s.role.settings == nil {
		s.role.settings = new(listenSettings)
	}
	return s.role.settings
}

// admit asks the connector to accept a new stream. After an error the stream is
// gone without a callback.
func (s *Stream) admit() error {
	a, ok := s.t.connector.(transport.Admitter)
	if !ok || s.attached != nil {
		return nil
	}
	o, err := a.Admit()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.machine.Kill()
		s.e.owner.remove(s)
		return err
	}
	s.attach(o)
	return nil
}

// Close ends the context: NewStream fails from then on, and the existing streams
// are destroyed. It does not wait for that or for acknowledgements, unlike
// [Context.Shutdown], so callbacks may call it. It may be called more than once,
// and returns nil.
func (c *Context) Close() error {
	c.mu.Lock()
	first := !c.ending
	c.closed, c.ending = true, true
	c.mu.Unlock()
	if first {
		c.host.Close()
		go c.close()
	}
	return nil
}

// Shutdown ends the context without losing messages. NewStream fails from then on.
// Shutdown waits for the acknowledgement of the messages that Tx or Write have
// passed (see [Stream.Unacknowledged]), for at most half of the time left until the
// deadline of ctx. Then it calls Close, and waits until the last DESTROYING has
// been answered and every goroutine and connection of the context is gone.
//
// The error is an *UnacknowledgedError if messages were not acknowledged, or the
// error of ctx if ctx is done first. Shutdown must not be called from a callback,
// where it would wait for itself; use Close there.
func (c *Context) Shutdown(ctx context.Context) error {
	err := c.drain(ctx)
	c.Close()
	select {
	case <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain waits for the acknowledgements of all streams.
func (c *Context) drain(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Until(deadline)/2, ErrTimeout)
		defer cancel()
	}
	missing := 0
	for _, s := range c.refuse() {
		missing += s.drain(ctx.Done())
	}
	if missing == 0 {
		return nil
	}
	return &UnacknowledgedError{Missing: missing, Err: ctx.Err()}
}

func (c *Context) close() {
	for _, s := range c.refuse() {
		s.destroy(true, ErrClosed)
	}
	c.mu.Lock()
	for c.first != nil {
		c.empty.Wait()
	}
	types, stale := c.types, c.stale
	c.types, c.stale = nil, nil
	c.mu.Unlock()
	c.host.StopDials()
	// Run concurrently: each may take as long as abandonAfter.
	for _, t := range types {
		c.freeing.Go(t.close)
	}
	for t := range stale {
		c.freeing.Go(t.close)
	}
	c.freeing.Wait()
	c.host.Release()
	close(c.done)
}

// refuse makes the context refuse new streams, and returns the existing ones.
func (c *Context) refuse() (all []*Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for s := c.first; s != nil; s = s.next {
		all = append(all, s)
	}
	return all
}

// enter adds s to the list of streams. It returns false if the type of s has become
// stale; s is then not in the list.
func (c *Context) enter(s *Stream) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, ErrClosed
	}
	if s.t.stale.Load() {
		c.leaveLocked(s.t)
		return false, nil
	}
	c.addLocked(s)
	return true, nil
}

// addLocked adds s to the list of streams.
func (c *Context) addLocked(s *Stream) {
	s.next = c.first
	if s.next != nil {
		s.next.prev = s
	}
	c.first = s
}

// remove removes s from the list of streams. After it the caller must not do
// anything that Shutdown has to wait for.
func (c *Context) remove(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		c.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	if r := s.role; r != nil && r.accepted {
		r.port.leaveLocked(s)
	}
	c.leaveLocked(s.t)
	if c.first == nil {
		c.empty.Broadcast()
	}
}
