package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultConnectTimeout is how long an attempt may take until the peer has
// answered, as in lws.
const DefaultConnectTimeout = 15 * time.Second

// Options are the settings of a context that do not come from its policy. The
// zero value is good but for its lack of transports.
type Options struct {
	// Transports are tried by protocol; no two may speak the same.
	Transports []Transport

	// Logger gets what has no other way to the program, such as an internal
	// error. Nil means the standard logger of package log.
	Logger Logger

	// ConnectTimeout is how long an attempt may take from CONNECTING to
	// CONNECTED. Sending a part of a message starts it anew, and it does not
	// run while the peer waits for the program to send. 0 means
	// DefaultConnectTimeout, less than 0 no limit.
	ConnectTimeout time.Duration

	// Credentials has the tokens, keys, serial numbers and client certificates that
	// the policy asks for. Nil has none: a stream that needs some can not be
	// made.
	Credentials Credentials

	// Cookies keeps the cookies of streams whose policy says http_cookies, as New
	// of package runtime/cookies makes it. Nil keeps none: such a stream can not
	// be made.
	Cookies CookieJar

	// DialContext replaces the way network connections are made. network is
	// "tcp" or "unix"; address is as for net.Dial. Nil means a net.Dialer. For
	// the attr_ keys of the policy, what it returns should be a syscall.Conn.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Hooks are told what the streams do, for metrics and traces.
	Hooks Hooks

	// Wake is told until when the system may sleep: the earliest time at which
	// a stream whose policy says swake_validity is to try again or to look after
	// its connection; the zero time if there is none. It is called whenever that
	// changes, with Context.Close for the last time, by one goroutine at a time,
	// and is for programs that put the system to sleep: they set an alarm that
	// wakes it, and say so to Context.Resumed. Nil has no effect.
	Wake func(at time.Time)

	// Jitter returns the random number that spreads retries, uniform over
	// 0 to 65535. It may be called by many goroutines at a time. Nil means
	// math/rand/v2.
	Jitter func() uint16
}

// A Context executes one policy. Its methods may be called from any goroutine,
// also from inside callbacks.
type Context struct {
	policy     atomic.Pointer[Policy]
	next       atomic.Pointer[Policy] // that is about to be laid over the present one, or nil; set under mu
	opts       Options
	log        Logger
	transports [maxProtocol + 1]Transport

	life   context.Context // done once Close has been called
	end    context.CancelFunc
	links  sync.Pool // of *Link
	trust  trustCache
	dialed dialed
	timers timers

	unmarked sync.Map // attributes of which it is known that they have no effect

	proxies struct {
		sync.Mutex
		m map[string]*Proxy // by the text in the policy
	}

	smd SMD

	// mu is taken while no other lock is held. The mu of a stream may be taken
	// while it is.
	mu    sync.Mutex
	types map[string]*streamType   // those that have streams, or had some lately
	stale map[*streamType]struct{} // those that have streams, but will have no more
	first *Stream                  // list of the streams not yet destroyed
	empty *sync.Cond               // first is nil
	sinks map[string]*Sink         // by streamtype

	// What executes local sinks and SMDStreamType; nil until the program asks for
	// it, so that it is not linked into one that never does.
	sinkConnector, smdConnector Connector
	closed                      bool
	freeing                     sync.WaitGroup // counts calls of free that have begun
	done                        chan struct{}  // closed when Close has done all
}

const maxProtocol = ProtocolRaw

// NewContext returns a context for the policy, which it keeps and never
// changes. It opens nothing: the cost of a streamtype, and the errors in it,
// come with the first stream.
func NewContext(p *Policy, o Options) (*Context, error) {
	if p == nil {
		return nil, errors.New("sspolicy: NewContext: no policy")
	}
	c := &Context{opts: o, log: o.Logger, done: make(chan struct{})}
	c.policy.Store(p)
	if c.log == nil {
		c.log = stdLogger{}
	}
	if c.opts.ConnectTimeout == 0 {
		c.opts.ConnectTimeout = DefaultConnectTimeout
	}
	if c.opts.Jitter == nil {
		c.opts.Jitter = func() uint16 { return uint16(rand.Uint32()) }
	}
	for _, t := range o.Transports {
		for _, p := range t.Protocols() {
			if p > maxProtocol {
				return nil, fmt.Errorf("sspolicy: NewContext: transport %T speaks an unknown protocol %v", t, p)
			}
			if c.transports[p] != nil {
				return nil, fmt.Errorf("sspolicy: NewContext: two transports speak %v: %T and %T", p, c.transports[p], t)
			}
			c.transports[p] = t
		}
	}
	c.timers.init(o.Wake)
	c.smd.log = c.log
	c.empty = sync.NewCond(&c.mu)
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

// Policy returns the policy that the context executes: the one that SetPolicy or
// Overlay has set last, else that of NewContext.
func (c *Context) Policy() *Policy { return c.policy.Load() }

// String returns the release and product of the policy, for messages. It, and
// GoString, keep fmt from printing what is in a context, such as passwords of proxies.
func (c *Context) String() string {
	p := c.Policy()
	return fmt.Sprintf("policy %q of product %q", p.Release, p.Product)
}

// GoString is String, for %#v.
func (c *Context) GoString() string { return c.String() }

// SMD returns the message distribution of the context.
func (c *Context) SMD() *SMD { return &c.smd }

// Logger returns the logger of the context, never nil. It is for transports.
func (c *Context) Logger() Logger { return c.log }

// ConnectTimeout returns the limit of an attempt; 0 is none. It is for
// transports.
func (c *Context) ConnectTimeout() time.Duration { return max(c.opts.ConnectTimeout, 0) }

// Resumed says that the system has slept for that long, which the clocks of a Go
// program do not count (on Linux, it is what CLOCK_BOOTTIME has gained on
// CLOCK_MONOTONIC). What has become due meanwhile is done at once.
func (c *Context) Resumed(asleep time.Duration) { c.timers.resumed(asleep) }

// DialTimeout is how long the making of a connection may go on when the attempt
// that wanted it has given up; 0 is without a limit. It is longer than
// ConnectTimeout, so that an attempt ends by its own limit, by more than the
// clocks of a busy machine are late. It is for transports.
func (c *Context) DialTimeout() time.Duration {
	limit := c.ConnectTimeout()
	if limit == 0 {
		return 0
	}
	return limit + min(limit/4+time.Second, math.MaxInt64-limit)
}

// NewStream makes a stream of the named type, with those options: metadata,
// mostly. Before it returns, the State callback gets CREATING, and, if the stream
// is to connect at once, because the policy says nailed_up or the callback asked
// for it, CONNECTING; a stream of SMDStreamType or of a local_sink also CONNECTED.
// When one of them answers DestroyMe the stream is destroyed, and NewStream returns
// ErrRefused.
//
// Other errors are ErrClosed, ErrUnknownStreamType, ErrNoTransport,
// ErrPolicyChanged if the policy is replaced meanwhile, and those
// that say what in the streamtype can not be executed: ErrUnsupported,
// ErrNoCredentials, ErrTemplate, ErrEndpoint, ErrUnknownMetadata; for a local_sink
// also ErrNoSink and ErrSinkRefused.
func (c *Context) NewStream(streamtype string, h Handlers, options ...StreamOption) (*Stream, error) {
	for _, o := range options {
		if o, ok := o.(interface{ enable(*Context) }); ok {
			o.enable(c)
		}
	}
	s, err := c.newStream(streamtype, h, func(s *Stream) error {
		for _, o := range options {
			if err := o.fill(s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sspolicy: new stream %q: %w", streamtype, err)
	}
	return s, nil
}

// newStream makes a stream. What fill does to it is done before it begins its
// life.
func (c *Context) newStream(streamtype string, h Handlers, fill func(*Stream) error) (*Stream, error) {
	var s *Stream
	for added := false; !added; { // once more if the policy changes meanwhile
		t, err := c.prepare(streamtype)
		if err != nil {
			return nil, err
		}
		s = &Stream{c: c, t: t, h: h, busy: true}
		if err := fill(s); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.leave(t)
			return nil, err
		}
		if added, err = c.add(s); err != nil {
			return nil, err
		}
	}
	if err := s.enterSink(); err != nil {
		return nil, err
	}
	switch {
	case s.create():
		return s, nil
	case c.life.Err() != nil:
		return nil, ErrClosed
	case s.Err() == ErrPolicyChanged:
		return nil, ErrPolicyChanged
	}
	return nil, ErrRefused
}

// Close destroys every stream, and waits until the last DESTROYING has been
// answered and every goroutine and connection of the context is gone. Called
// from inside a callback, or a method of Credentials, it can not wait, and
// returns at once. It may be called more than once; it returns nil.
func (c *Context) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	inside := insideCallback()
	if first {
		c.end()
		if inside {
			go c.close()
		} else {
			c.close()
		}
	}
	if !inside {
		<-c.done
	}
	return nil
}

// Closed reports whether Close has been called. It is for transports.
func (c *Context) Closed() bool { return c.life.Err() != nil }

func (c *Context) close() {
	c.mu.Lock()
	var all []*Stream
	for s := c.first; s != nil; s = s.next {
		all = append(all, s)
	}
	c.mu.Unlock()
	for _, s := range all {
		s.destroy(true, ErrClosed)
	}
	c.mu.Lock()
	for c.first != nil {
		c.empty.Wait()
	}
	types := slices.Collect(maps.Values(c.types))
	types = slices.AppendSeq(types, maps.Keys(c.stale))
	c.types, c.stale = nil, nil
	c.mu.Unlock()
	for _, t := range types {
		c.closeType(t)
	}
	c.freeing.Wait()
	c.smd.close()
	c.dialed.close()
	c.timers.close()
	close(c.done)
}

// insideCallback reports whether the calling goroutine is running a callback
// of some stream, a method of Credentials for it, a listener of SMD, the
// join of a Sink, or Options.Wake. There is no cheaper way to ask, but only Close asks.
func insideCallback() bool {
	pcs := make([]uintptr, 64)
	for skip := 1; ; skip += len(pcs) {
		n := goruntime.Callers(skip, pcs)
		frames := goruntime.CallersFrames(pcs[:n])
		for n > 0 {
			f, more := frames.Next()
			if strings.Contains(f.Function, "sspolicy/runtime.(*Stream).call") ||
				strings.Contains(f.Function, "sspolicy/runtime.(*Listener).call") ||
				strings.Contains(f.Function, "sspolicy/runtime.(*Sink).call") ||
				strings.Contains(f.Function, "sspolicy/runtime.(*timers).call") {
				return true
			}
			if !more {
				break
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// add enters s into the list of streams. It reports false if there are to be no
// more streams of its type, which it then has left.
func (c *Context) add(s *Stream) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, ErrClosed
	}
	if s.t.stale.Load() {
		c.leave(s.t)
		return false, nil
	}
	s.next = c.first
	if s.next != nil {
		s.next.prev = s
	}
	c.first = s
	return true, nil
}

// remove takes s out of the list. Whoever calls it does nothing after it that
// Close would have to wait for.
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
	c.leave(s.t)
	if c.first == nil {
		c.empty.Broadcast()
	}
}
