package runtime

import (
	"context"
	"sync"
	"time"
)

// A Transport speaks one or more protocols. Its methods may be called from
// many goroutines at a time, and one transport may serve several contexts.
type Transport interface {
	// Protocols returns what the transport speaks.
	Protocols() []Protocol

	// Prepare is called for a context and streamtype with the first stream, and
	// with the first one after Close of what it returned. It refuses a streamtype
	// that asks for what the transport does not do, with an error that wraps
	// ErrUnsupported or ErrNoCredentials. What concerns every protocol has been
	// checked by then.
	Prepare(c *Context, st *StreamType) (Connector, error)
}

// A Connector makes the connections of one streamtype of one context.
type Connector interface {
	// Run makes one attempt to connect, and carries the connection, if there
	// is one, until its end. It reports what happens by calling the methods of
	// l, and gives up when one of them returns an error, or ctx is done.
	//
	// A return before l.Connected has been called means that the peer was
	// unreachable. After it, nil means that the connection has done what it
	// was for, and another error that it was lost.
	//
	// After Run has returned neither l nor ctx may be used, unless Tx,
	// TxReady or TellTx of l has been called: then calls to l, which fail, are allowed.
	Run(ctx context.Context, l *Link) error

	// Close is called when no stream of the streamtype has been there for a
	// while, or the context ends.
	Close() error
}

// An opener is a connector of this package that connects a stream inside of
// NewStream.
type opener interface {
	// open does what Run does until l.Connected has returned, and the error is
	// that. Run is called after it, if there is none.
	open(l *Link) error
}

// A Link is one attempt, and the connection that comes of it, as a transport
// sees it. The methods that report an event call back the program, on the
// goroutine of the caller, and return when the program has. All methods may be
// called from any goroutine of the transport; events wait for each other.
type Link struct {
	c      *Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	run    func()    // what the goroutine of a stream starts with
	x      *exchange // of the stream, if it is of Fetch or Open

	// All below is guarded by the stream's mu.
	s       *Stream
	turn    *sync.Cond // the stream is no longer busy, or phase changed; its L is s.mu
	waiting int        // how many wait for turn
	timer   timer      // ends the attempt

	t          *streamType // by which the attempt is made; does not change from its begin on
	phase      phase
	connected  bool      // CONNECTED has been delivered
	complete   bool      // Complete has been called
	last       bool      // no attempt follows by itself
	timing     bool      // timer has been set, and not been stopped
	smd        *Listener // of a stream of SMDStreamType
	spent      bool      // not to be used for another attempt
	cause      error     // why the link is to end, if not by the transport
	txReady    chan struct{}
	tellTx     func()
	txHeld     bool // it is not to tell
	target     *Target
	url        string
	perf       *Perf // nil: not wanted
	retryAfter time.Duration
	status     int // of the answer
	ride       int // index in the chain of the streamtype
	delivered  int64
}

type phase uint8

const (
	idle     phase = iota // no attempt yet
	starting              // POLL and CONNECTING are being delivered
	running               // Run has been called or is about to be
	ending                // Run has returned; finish is waiting for the turn
	ended                 // finish has the turn
)

// newLink returns a link for a stream, whose mu is held.
func (c *Context) newLink(s *Stream) *Link {
	l, _ := c.links.Get().(*Link)
	if l == nil {
		l = &Link{c: c}
		l.ctx, l.cancel = context.WithCancelCause(context.Background())
		l.run = l.work
		l.turn = sync.NewCond(nil)
		l.timer.owner = l
	}
	l.s, l.x = s, s.x
	l.turn.L = &s.mu
	return l
}

// release ends the use of a link for a stream, whose mu is held.
func (l *Link) release() {
	l.stopTimer()
	if l.spent || l.waiting > 0 {
		l.cancel(nil)
		return
	}
	*l = Link{c: l.c, ctx: l.ctx, cancel: l.cancel, run: l.run, turn: l.turn, timer: timer{owner: l}}
	l.c.links.Put(l)
}

// end tells the transport to give up. The stream's mu is held.
func (l *Link) end(cause error) {
	if l.cause == nil {
		l.cause = cause
	}
	l.spent = true
	l.cancel(l.cause)
}

// startTimer starts the limit of the attempt anew. The stream's mu is held.
func (l *Link) startTimer() {
	d := l.c.ConnectTimeout()
	if d == 0 {
		return
	}
	l.stopTimer()
	l.timing = true
	l.c.timers.start(&l.timer, d)
}

// stopTimer stops the limit of the attempt. If the time is up already expire may
// look at the link at any time to come. The stream's mu is held.
func (l *Link) stopTimer() {
	if l.timing {
		l.timing = false
		l.spent = !l.c.timers.stop(&l.timer) || l.spent
	}
}

func (l *Link) expire(*timer) {
	// A link whose time is up while it is stopped is never used again, so s
	// stays what it was.
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.timing && l.phase == running && !l.connected {
		l.end(ErrTimeout)
	}
}

// Context returns the context that the stream belongs to.
func (l *Link) Context() *Context { return l.c }

// StreamType returns what the policy says of the stream.
func (l *Link) StreamType() *StreamType { return l.t.policy }

// Target returns where to connect. It must not be changed; two attempts with
// an equal target may get the same pointer, or not.
func (l *Link) Target() *Target { return l.target }

// URL returns the http_url of the policy with the metadata put in as it was
// before CONNECTING was delivered.
func (l *Link) URL() string { return l.url }

// HasTx reports whether the stream has a Tx callback.
func (l *Link) HasTx() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.h.Tx != nil
}

// TxLen returns the length of the next message in bytes, as RequestTxLen gave
// it; 0 if it is not known.
func (l *Link) TxLen() uint64 {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.txLen
}

// TakeTxLen is TxLen, and forgets the length: it is for protocols with many
// messages on a connection, at the beginning of each.
func (l *Link) TakeTxLen() uint64 {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	n := l.s.txLen
	l.s.txLen = 0
	return n
}

// Metadata returns the value that the program has set for item i of the
// streamtype, and whether it has.
func (l *Link) Metadata(i int) (value string, set bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if own := l.s.own(); i < len(own) {
		return own[i].text, own[i].set
	}
	return "", false
}

// Expand returns a text with the values put in that the program has set.
func (l *Link) Expand(t *Template) string {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return t.expand(l.s.own())
}

// Receive sets item i of the streamtype to what the peer sent, for the program
// to read. It does not change what Metadata returns here.
func (l *Link) Receive(i int, value string) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.phase == running {
		l.s.receive(i, value)
	}
}

// Redirected reports that the server has redirected the stream, for
// http_fail_redirect. It is to be called before anything is made of the redirect.
func (l *Link) Redirected() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if h := l.t.policy.HTTP; l.phase == running && h != nil && h.FailRedirect {
		l.s.captive = true
	}
}

// RetryAfter raises the wait before the next attempt to d. It never lowers it.
func (l *Link) RetryAfter(d time.Duration) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.retryAfter = max(l.retryAfter, d)
}

// Status says which status the answer has, for Stream.Status to tell. It is
// called before Connected, by transports of protocols that have such a thing.
func (l *Link) Status(code int) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.status = code
}

// NoRetry says that no attempt is to follow this one by itself, however it ends.
func (l *Link) NoRetry() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.last = true
}

// Delivered returns how many bytes of payload have been handed to Rx callbacks,
// those of a call that has not returned yet among them.
func (l *Link) Delivered() int64 {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.delivered
}

// TxEnded reports whether Tx has returned all that will ever be sent: the body
// of a call has ended, or Conn.CloseWrite been called. For a stream that a
// program has made with NewStream, the transport has to know by other means.
func (l *Link) TxEnded() bool {
	x := l.x
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tail == tailSent
}

// TxFailed says that nothing more can be sent, while what the peer has sent may
// still be received: so that Conn.Write fails, though nobody reads.
func (l *Link) TxFailed(err error) {
	x := l.x
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.broken = err
	x.cond.Broadcast()
}

// enter waits for the turn to call back, and takes it. An error means that the
// link has ended, and the turn was not taken.
func (l *Link) enter() (Handlers, error) {
	if err := l.take(); err != nil {
		return Handlers{}, err
	}
	h := l.s.h
	l.s.mu.Unlock()
	return h, nil
}

// take is enter, and keeps the stream's mu if there is no error.
func (l *Link) take() error {
	s := l.s
	s.mu.Lock()
	for s.busy && l.phase == running {
		l.waiting++
		l.turn.Wait()
		l.waiting--
	}
	if l.phase != running || l.cause != nil {
		err := l.cause
		if err == nil {
			err = ErrClosed
		}
		s.mu.Unlock()
		return err
	}
	s.busy = true
	return nil
}

// leave does what the callback answered and gives the turn up. An error means
// that the transport is to give up.
func (l *Link) leave(r Result) error {
	l.s.mu.Lock()
	return l.give(r)
}

// give is leave where the stream's mu is held, which it gives up.
func (l *Link) give(r Result) error {
	s := l.s
	if r == OK && s.asked&(askTimeout|askDestroy) == 0 {
		s.yield()
	} else {
		s.obey(r)
		s.settle()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if l.cause == nil && l.phase != running {
		return ErrClosed
	}
	return l.cause
}

// Call calls f as a callback of the stream, and does what it answers, as that of
// a State callback. It is for what a transport has to tell beside states.
func (l *Link) Call(f func() Result) error {
	if _, err := l.enter(); err != nil {
		return err
	}
	return l.leave(l.s.callTransport(f))
}

// state delivers a state.
func (l *Link) state(state State) error {
	if _, err := l.enter(); err != nil {
		return err
	}
	return l.leave(l.s.tell(state, 0))
}

// Connected reports that the connection is good. It delivers CONNECTED, and
// ends the series of retries: the next failure is the first of a new one.
func (l *Link) Connected() error {
	h, err := l.enter()
	if err != nil {
		return err
	}
	l.tellPerf(h)
	s := l.s
	s.mu.Lock()
	l.connected = true
	l.stopTimer()
	s.tries, s.err = 0, nil
	s.mu.Unlock()
	return l.leave(s.tell(StateConnected, 0))
}

// UserState delivers a state of the policy's http_resp_map.
func (l *Link) UserState(state State) error { return l.state(state) }

// Ack reports that the peer took a message. It stops the timer of StartTimeout,
// as lws does for mqtt.
func (l *Link) Ack() error {
	l.s.mu.Lock()
	if l.phase == running {
		l.s.stopTimeout()
	}
	l.s.mu.Unlock()
	return l.state(StateQoSAckRemote)
}

// Nack reports that the peer did not take a message.
func (l *Link) Nack() error { return l.state(StateQoSNackRemote) }

// Complete is Ack or Nack for the only message of a connection: whatever the
// program answers, the connection has done what it was for.
func (l *Link) Complete(good bool) error {
	state := StateQoSNackRemote
	if good {
		state = StateQoSAckRemote
	}
	if _, err := l.enter(); err != nil {
		return err // a timeout, say, came first: the program is not told, so it is not done
	}
	l.s.mu.Lock()
	l.complete = true
	l.s.mu.Unlock()
	return l.leave(l.s.tell(state, 0))
}

// Rx delivers payload. buf is not kept.
func (l *Link) Rx(buf []byte, flags Flags) error {
	_, err := l.rx(buf, flags, false)
	return err
}

// RxAsk is Rx for a transport that can send on the goroutine that it receives
// on, which is quicker: ask reports whether the program has asked to send. Of
// what is asked for while the callback runs neither TxReady nor TellTx tells.
func (l *Link) RxAsk(buf []byte, flags Flags) (ask bool, err error) {
	return l.rx(buf, flags, true)
}

func (l *Link) rx(buf []byte, flags Flags, hold bool) (ask bool, err error) {
	s := l.s
	if l.x != nil {
		l.x.room(len(buf), flags)
	}
	if err := l.take(); err != nil {
		return false, err
	}
	l.delivered += int64(len(buf))
	l.txHeld = hold
	h := s.h.Rx
	s.mu.Unlock()
	if f := l.c.opts.Hooks.Rx; f != nil {
		f(s.context(), s, len(buf))
	}
	r := OK
	if h != nil {
		r = s.callRx(h, buf, flags)
	}
	s.mu.Lock()
	l.txHeld, ask = false, s.wantTx
	return ask, l.give(r)
}

// Asked reports whether the program has asked to send since the latest Tx.
func (l *Link) Asked() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.wantTx && l.phase == running
}

// RxEnd delivers the end of the only message of a connection, as an empty
// piece with FlagEOM.
func (l *Link) RxEnd() error {
	h, err := l.enter()
	if err != nil {
		return err
	}
	r := OK
	if h.Rx != nil {
		if r = l.s.callRx(h.Rx, nil, FlagEOM); r != DestroyMe {
			r = OK
		}
	}
	return l.leave(r)
}

// Tx asks the program for payload. If it returns 0, 0, nil there is none for
// now: the transport asks again when TxReady says so. Where streamtypes
// rideshare, FlagEOM is the end of the last one's message; that the message of
// another one has ended is seen from Rideshare, which then is the next one, and
// TxReady is told.
func (l *Link) Tx(buf []byte) (n int, flags Flags, err error) {
	if err := l.take(); err != nil {
		return 0, 0, err
	}
	s := l.s
	l.spent = true // transports send from goroutines that may outlive Run
	l.takeTx()
	h, ordinal := s.h.Tx, s.ordinal
	if h != nil {
		s.ordinal++
	}
	s.mu.Unlock()
	r := TxDontSend
	if h != nil {
		n, flags, r = s.callTx(h, ordinal, buf)
		if n < 0 || n > len(buf) {
			s.c.log.Error("sspolicy: the Tx callback returned a length that does not fit the buffer",
				"streamtype", s.t.policy.Name, "n", n, "len", len(buf))
			r = DisconnectMe
		}
	}
	if r != OK {
		n, flags = 0, 0
	}
	if f := s.c.opts.Hooks.Tx; f != nil && n > 0 {
		f(s.context(), s, n)
	}
	s.mu.Lock()
	if !l.connected && l.phase == running {
		if n == 0 && flags == 0 {
			l.stopTimer() // it is the program that is waited for
		} else {
			l.startTimer()
		}
	}
	if flags&FlagEOM != 0 && l.ride < len(l.t.chain)-1 {
		flags &^= FlagEOM
		l.ride++
		s.wantTx = true
		l.requestTx()
	}
	if r == TxDontSend {
		r = OK
	}
	return n, flags, l.give(r)
}

// Rideshare returns the streamtype that the next Tx is for. It is that of the
// stream, and then those that share its request, in turn.
func (l *Link) Rideshare() *StreamType {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.t.chain[l.ride]
}

// TxReady returns a channel that gets a value when the program has asked to
// send since the latest Tx.
func (l *Link) TxReady() <-chan struct{} {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.txReady == nil {
		l.spent = true
		l.txReady = make(chan struct{}, 1)
		if l.s.wantTx {
			l.txReady <- struct{}{}
		}
	}
	return l.txReady
}

// TellTx is TxReady for a transport that has no goroutine to wait there: f is
// called, as often as the program asks to send. It is called with locks held, by
// the goroutine that asks: it must not wait for anything, nor call l.
func (l *Link) TellTx(f func()) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.spent, l.tellTx = true, f
	if l.s.wantTx {
		f()
	}
}

// requestTx says that the program wants to send. The stream's mu is held.
func (l *Link) requestTx() {
	if l.txHeld {
		return
	}
	if l.tellTx != nil {
		l.tellTx()
	}
	if l.txReady != nil {
		select {
		case l.txReady <- struct{}{}:
		default:
		}
	}
}

// takeTx forgets that the program wants to send. The stream's mu is held.
func (l *Link) takeTx() {
	l.s.wantTx = false
	select {
	case <-l.txReady: // blocks, and so is passed over, when it is nil
	default:
	}
}
