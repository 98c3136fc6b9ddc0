package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"
)

// A Stream is one use of a streamtype. It outlives its connections. While it
// is idle it holds no goroutine, timer or connection. Its methods may be called
// from any goroutine, also from inside its callbacks, and never wait for one.
type Stream struct {
	c          *Context
	t          *streamType // set under the turn, mu, and mu of the context: any one of them is enough to read it
	prev, next *Stream     // list of the context, guarded by its mu

	// busy is the turn: whoever sets it may call back, until it clears it.
	// What is asked for in the meantime is noted in asked, and done by the one
	// that has the turn before it is given up, see settle.
	mu    sync.Mutex
	busy  bool
	gone  bool // DESTROYING has been delivered, or is being
	asked asked

	wantTx bool // RequestTx has been called and no Tx since

	state   State  // latest of those that are remembered
	tries   uint16 // failed attempts in this series
	ordinal uint32 // of the next Tx

	h       Handlers
	x       *exchange       // that the stream is for, if it is of Fetch or Open
	link    *Link           // of the attempt; nil when idle
	retry   *timer          // of the wait for the next attempt; nil if there is none
	timeout *timer          // of StartTimeout; nil if it does not run
	meta    []metadataValue // what the program set, then what the peer sent
	direct  *direct         // headers beside those; mostly nil
	data    *transportData  // mostly nil
	credit  *Credit         // of the peer; mostly nil
	sink    *sinkEnd        // of a local_sink; else nil
	txLen   uint64
	classes Class // of WithClasses
	captive bool  // see CaptivePortal
	err     error
}

// asked is what a stream is to do when the turn is free.
type asked uint8

const (
	askTx      asked = 1 << iota // RequestTx, or the end of a retry wait
	askConnect                   // Connect
	askNailed                    // the first attempt of a nailed_up stream
	askTimeout                   // the timer of StartTimeout has run out
	askDestroy
	askReplaced // beside askDestroy: for ErrPolicyChanged
)

// create is the first turn of a stream. It reports whether the stream lives on.
func (s *Stream) create() bool {
	told := false
	defer func() {
		if !told { // a callback panicked, or ended the goroutine
			s.mu.Lock()
			s.gone = true
			s.asked = 0
			s.stopRetry()
			s.stopTimeout()
			s.drop()
			s.mu.Unlock()
			s.leaveSink(true)
			s.c.remove(s)
		}
	}()
	r := s.tell(StateCreating, 0)
	s.mu.Lock()
	if r == DestroyMe {
		s.asked |= askDestroy
	}
	if s.t.policy.NailedUp || s.sink != nil {
		s.asked |= askNailed
	}
	l, gone := s.settle()
	if l != nil {
		if o, ok := s.t.connector.(opener); ok && o.open(l) != nil {
			l.run() // which ends at once
			s.mu.Lock()
			gone = s.gone
			s.mu.Unlock()
		} else {
			go l.run()
		}
	}
	told = true
	return !gone
}

// String returns the name of the streamtype, for messages. It, and GoString, keep fmt
// from printing what is in a stream, such as metadata.
func (s *Stream) String() string { return s.StreamType().Name }

// GoString is String, for %#v.
func (s *Stream) GoString() string { return s.String() }

// StreamType returns what the policy says of the stream. After an Overlay it is
// what the policy said before, until the next attempt.
func (s *Stream) StreamType() *StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t.policy
}

// Rideshare returns the streamtype whose message Tx is to give: that of the
// stream, and, once a Tx has ended its message with FlagEOM, the one that its
// rideshare names, and so on. Each attempt begins with that of the stream.
func (s *Stream) Rideshare() *StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return s.t.policy
	}
	return s.t.chain[s.link.ride]
}

// CaptivePortal reports whether the server has answered the latest attempt with
// a redirect, and the policy says http_fail_redirect: that a captive portal has
// answered in place of the server. The redirect is followed all the same, if the
// policy says allow_redirects.
func (s *Stream) CaptivePortal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.captive
}

// State returns the latest state that was delivered, or is being delivered;
// user states do not count.
func (s *Stream) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Err returns why the latest attempt failed, or the latest connection ended;
// nil if it ended because all was done, or is still good. It is meant for
// people, and for [errors.Is] and [errors.As]: ErrTimeout, ErrDisconnected,
// a *TrustError, and what net, crypto/tls and the transport return.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// SetHandlers replaces those callbacks that are not nil in h, from the next
// event on.
func (s *Stream) SetHandlers(h Handlers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	if h.State != nil {
		s.h.State = h.State
	}
	if h.Rx != nil {
		s.h.Rx = h.Rx
	}
	if h.Tx != nil {
		s.h.Tx = h.Tx
	}
}

// RequestTx asks for one call of Tx. If the stream is not connected it starts
// an attempt, after POLL, that goes on with the present series of retries.
// While an attempt or a wait for the next one is pending it changes nothing.
// Asking twice is asking once. The error is nil or ErrClosed.
func (s *Stream) RequestTx() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requestTx()
}

// RequestTxLen is RequestTx, and says that the next message has n bytes. Over
// HTTP it becomes the content-length of a POST, PUT or PATCH, unless the policy
// says http_no_content_length. 0 means that the length is not known. It holds
// until an HTTP transaction is complete, so also for retries of it. Where other
// streamtypes share the request (rideshare), n is what all the messages have
// together; what frames the parts of a multipart request is not counted.
func (s *Stream) RequestTxLen(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txLen = n
	return s.requestTx()
}

func (s *Stream) requestTx() error {
	if s.gone || s.asked&askDestroy != 0 {
		return s.errClosed()
	}
	s.wantTx = true
	switch {
	case s.attempt():
		s.link.requestTx()
	case s.retry == nil:
		s.asked |= askTx
		s.wake()
	}
	return nil
}

// Connect starts an attempt at once, and a new series of retries, without
// POLL. A wait for a retry is cut short. If the stream is connected, or an
// attempt is under way, it changes nothing. The error is nil or ErrClosed.
func (s *Stream) Connect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.asked&askDestroy != 0 {
		return s.errClosed()
	}
	if !s.attempt() {
		s.asked |= askConnect
		s.wake()
	}
	return nil
}

// Destroy closes the connection and ends the stream: DISCONNECTED, if the
// stream was connected, and DESTROYING are delivered, and nothing after them.
// It does not wait for them. Called from inside one of the stream's own
// callbacks it has the effect of the callback's answering DestroyMe.
func (s *Stream) Destroy() { s.destroy(false, ErrClosed) }

// destroy is Destroy for a cause, ErrClosed or ErrPolicyChanged, and delivers
// the last states itself if it can and here says so.
func (s *Stream) destroy(here bool, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.asked&askDestroy != 0 {
		return
	}
	s.asked |= askDestroy
	if cause == ErrPolicyChanged {
		s.asked |= askReplaced
	}
	switch {
	case s.link != nil && s.link.phase == running:
		s.link.end(cause)
	case s.busy || s.link != nil:
		// Whoever has the turn, or is about to take it in finish, will see.
	case here:
		s.busy = true
		s.settle() // with an attempt out of the question, it starts none
		s.mu.Lock()
	default:
		s.wake()
	}
}

// StartTimeout starts the stream's timer, or starts it anew: after d, TIMEOUT
// is delivered once. A d of 0 or less means the policy's timeout_ms; if that is
// 0 too nothing is done. The timer is cancelled by CancelTimeout, by the end of
// the connection unless an HTTP stream is going to retry, and by the end of the
// stream. It survives failed attempts.
func (s *Stream) StartTimeout(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d <= 0 {
		d = s.t.policy.Timeout
	}
	if d <= 0 || s.gone {
		return
	}
	s.stopTimeout()
	s.timeout = &timer{owner: s}
	s.c.timers.start(s.timeout, d)
}

// expire is called when a timer of the stream has run out.
func (s *Stream) expire(t *timer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch t {
	case s.timeout:
		s.timeout = nil
		s.asked |= askTimeout
	case s.retry:
		s.retry = nil
		s.asked |= askTx
	default:
		return // stopped or replaced meanwhile
	}
	s.wake()
}

// CancelTimeout stops the timer of StartTimeout. A TIMEOUT that is not being
// delivered already will not be.
func (s *Stream) CancelTimeout() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimeout()
}

func (s *Stream) stopTimeout() {
	if s.timeout != nil {
		s.c.timers.stop(s.timeout)
		s.timeout = nil
	}
	s.asked &^= askTimeout
}

func (s *Stream) stopRetry() {
	if s.retry != nil {
		s.c.timers.stop(s.retry)
		s.retry = nil
	}
}

func (s *Stream) errClosed() error {
	return fmt.Errorf("sspolicy: streamtype %q: %w", s.t.policy.Name, ErrClosed)
}

// attempt reports whether an attempt is under way, or its connection. mu is held.
func (s *Stream) attempt() bool {
	return s.link != nil && (s.link.phase == starting || s.link.phase == running)
}

// wake sees to it that what is asked gets done. If nobody has the turn it
// starts a goroutine for it. mu is held.
func (s *Stream) wake() {
	switch {
	case s.busy:
	case s.link == nil:
		s.busy = true
		s.link = s.c.newLink(s)
		go s.link.run()
	case s.link.phase == running: // the goroutine of the stream is in Run
		s.busy = true
		go s.visit()
	}
}

// visit does what is asked while the goroutine of the stream is in Run.
func (s *Stream) visit() {
	s.mu.Lock()
	s.settle()
}

// work is the goroutine of a stream that is not idle. It begins with the turn
// taken, or with an attempt begun.
func (l *Link) work() {
	s := l.s
	s.mu.Lock()
	if l.phase == idle {
		l, _ = s.settle()
	} else {
		s.mu.Unlock()
	}
	s.work(l)
}

func (s *Stream) work(l *Link) {
	for l != nil {
		err := l.failed()
		if err == nil {
			err = s.t.connector.Run(l.ctx, l)
		}
		s.finish(l, err)
		l, _ = s.settle()
	}
}

// settle does all that is asked, and then gives up the turn. The caller has the
// turn and holds mu; settle gives up both. If an attempt has been begun it
// returns the link of it, whose Run the caller has to see to. It also returns
// whether it has ended the stream.
func (s *Stream) settle() (begun *Link, gone bool) {
	for {
		run := s.link != nil && s.link.phase == running
		switch {
		case s.link != nil && s.link.phase == ending:
			// finish is waiting for the turn, and will settle.
			s.pass()
			return nil, false
		case s.asked&askDestroy != 0 && !run:
			s.finalize()
			return nil, true
		case s.asked&askDestroy != 0:
			s.link.end(ErrClosed)
			s.pass()
			return begun, false
		case s.asked&askTimeout != 0:
			s.asked &^= askTimeout
			s.mu.Unlock()
			r := s.tell(StateTimeout, 0)
			s.mu.Lock()
			s.obey(r)
		case run:
			s.pass()
			return begun, false
		case s.asked&(askConnect|askNailed|askTx) != 0:
			begun = s.begin()
		default:
			s.drop()
			s.pass()
			return nil, false
		}
	}
}

// drop ends the use of the link. mu is held.
func (s *Stream) drop() {
	if l := s.link; l != nil {
		s.link = nil
		l.release()
	}
}

// pass gives up the turn and mu.
func (s *Stream) pass() {
	s.yield()
	s.mu.Unlock()
}

// yield gives up the turn. mu is held.
func (s *Stream) yield() {
	s.busy = false
	if s.link != nil && s.link.waiting > 0 {
		s.link.turn.Broadcast()
	}
}

// begin begins an attempt. It returns its link, or nil if a callback has
// declined it. The caller has the turn and holds mu.
func (s *Stream) begin() *Link {
	var err error
	if s.t.stale.Load() {
		s.mu.Unlock()
		err = s.renew()
		s.mu.Lock()
		if s.asked&askDestroy != 0 {
			return nil
		}
	}
	connect := s.asked&askConnect != 0
	poll := !connect && s.asked&askNailed == 0 && s.state != StatePoll // POLL must not follow POLL
	s.asked &^= askConnect | askNailed | askTx
	s.stopRetry()
	if connect {
		s.tries = 0
	}
	if s.link == nil {
		s.link = s.c.newLink(s)
	}
	l := s.link
	l.phase, l.t = starting, s.t
	if poll {
		s.mu.Unlock()
		r := s.tell(StatePoll, 0)
		s.mu.Lock()
		if r == DestroyMe {
			s.asked |= askDestroy
		}
		if r != OK || s.asked&askDestroy != 0 {
			s.drop()
			return nil
		}
	}
	s.forget()
	if err == nil {
		l.target, err = s.t.endpoint.resolve(s.t.policy, s.own())
	}
	l.cause = err
	l.url = s.t.url.expand(s.own())
	if s.t.policy.Perf && l.cause == nil {
		l.perf = new(Perf)
	}
	s.mu.Unlock()
	r := s.tell(StateConnecting, 0)
	s.mu.Lock()
	if r == DestroyMe {
		s.asked |= askDestroy
	}
	switch {
	case s.asked&askDestroy != 0:
		s.drop()
		return nil
	case r != OK:
		s.drop()
		s.leaveSink(false)
		s.err = ErrDisconnected
		if !connect && !s.backoff(0) {
			s.allFailed()
		}
		return nil
	}
	s.credit.restart()
	l.phase = running
	l.startTimer()
	return l
}

// Status returns the HTTP status of the answer, from CONNECTED to DISCONNECTED; 0
// before and after, and for protocols that have none.
// lws tells of it only by the states of http_resp_map.
func (s *Stream) Status() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return 0
	}
	return s.link.status
}

// failed returns why the attempt is not to be made at all.
func (l *Link) failed() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.cause
}

// finish is the end of an attempt or connection. err is what Run returned. It
// takes the turn and mu, and keeps both.
func (s *Stream) finish(l *Link, err error) {
	s.mu.Lock()
	l.phase = ending
	if l.waiting > 0 {
		l.turn.Broadcast()
	}
	for s.busy {
		l.waiting++
		l.turn.Wait()
		l.waiting--
	}
	s.busy = true
	l.phase = ended
	l.stopTimer()
	if l.cause != nil {
		err = l.cause
	}
	if l.connected {
		s.lost(l, err)
	} else {
		s.unreachable(l, err)
	}
	s.drop()
}

// lost is the end of a connection. The caller has the turn and holds mu.
func (s *Stream) lost(l *Link, err error) {
	if l.complete {
		err = nil
		s.txLen = 0
	}
	s.err = err
	s.wantTx = false
	again := err != nil && !l.last && !s.t.policy.Opportunistic && s.asked&askDestroy == 0
	if !again || !s.t.http {
		s.stopTimeout()
	}
	s.mu.Unlock()
	r := s.tell(StateDisconnected, 0)
	s.mu.Lock()
	if r == DestroyMe || s.accepted() {
		s.asked |= askDestroy
	}
	if !again || s.asked&(askDestroy|askConnect) != 0 {
		return
	}
	if s.backoff(l.retryAfter) {
		return
	}
	// ALL_RETRIES_FAILED can not follow DISCONNECTED.
	s.mu.Unlock()
	r = s.tell(StateUnreachable, 0)
	s.mu.Lock()
	if s.obeyIdle(r) {
		s.allFailed()
	}
}

// unreachable is the end of an attempt that failed. The caller has the turn
// and holds mu.
func (s *Stream) unreachable(l *Link, err error) {
	if err == nil {
		err = errors.New("sspolicy: the transport gave up without a reason")
	}
	s.err = err
	if s.asked&askDestroy != 0 {
		return
	}
	h := s.h
	s.mu.Unlock()
	l.tellPerf(h)
	r := s.tell(StateUnreachable, unreachableArg(err))
	s.mu.Lock()
	if s.obeyIdle(r) && s.asked&askConnect == 0 && (l.last || !s.backoff(l.retryAfter)) {
		s.allFailed()
	}
}

// unreachableArg is 1 for a failure of the resolver, but 0 for its answer that
// there is no such name, as in lws.
func unreachableArg(err error) uint32 {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsNotFound {
		return 1
	}
	return 0
}

// backoff counts a failure, and starts the wait for the next attempt if the
// policy conceals it; least is what the peer asked the wait to be at least. It
// reports whether there is one. Requests to send that came since the attempt
// ended are answered by either. mu is held.
func (s *Stream) backoff(least time.Duration) bool {
	s.asked &^= askTx
	p := s.t.policy.Retry
	n := s.tries
	if s.tries < math.MaxUint16 {
		s.tries++
	}
	if !p.conceals(s.tries) || s.asked&askDestroy != 0 {
		return false
	}
	d := max(p.delay(n, s.c.opts.Jitter()), least)
	if f := s.c.opts.Hooks.Wait; f != nil {
		s.mu.Unlock()
		f(s.context(), s, d)
		s.mu.Lock()
		s.asked &^= askTx
		if s.asked&askDestroy != 0 {
			return false
		}
	}
	s.retry = &timer{owner: s, wakes: s.t.policy.SwakeValidity}
	s.c.timers.start(s.retry, d)
	return true
}

// allFailed says that no retry is left. The caller has the turn and holds mu.
func (s *Stream) allFailed() {
	if s.asked&askDestroy != 0 {
		return
	}
	s.mu.Unlock()
	r := s.tell(StateAllRetriesFailed, 0)
	s.mu.Lock()
	if r == DestroyMe {
		s.asked |= askDestroy
	}
}

// obey does what a callback answered. The caller has the turn and holds mu.
func (s *Stream) obey(r Result) {
	switch {
	case r == OK:
	case r == DestroyMe:
		s.asked |= askDestroy
	case s.link != nil && s.link.phase == running:
		s.link.end(ErrDisconnected)
	}
}

// obeyIdle does what the callback for UNREACHABLE answered, and reports whether
// to go on with retries. mu is held.
func (s *Stream) obeyIdle(r Result) bool {
	if r == DestroyMe {
		s.asked |= askDestroy
	} else if r != OK {
		s.asked &^= askTx
	}
	return r == OK && s.asked&askDestroy == 0
}

// finalize ends the stream. The caller has the turn and holds mu; finalize
// gives up both.
func (s *Stream) finalize() {
	s.gone = true
	if s.asked&askReplaced != 0 {
		s.err = ErrPolicyChanged
	}
	s.asked = 0
	s.stopRetry()
	s.stopTimeout()
	s.drop()
	s.mu.Unlock()
	s.tell(StateDestroying, 0)
	s.mu.Lock()
	s.h = Handlers{}
	if s.x == nil { // else what Fetch and Open return has use for it
		s.meta = nil
		s.direct = nil
	}
	s.x = nil
	data := s.data
	s.pass()
	s.leaveSink(true)
	if data != nil && data.end != nil {
		data.end()
	}
	s.c.remove(s)
}

// tell delivers a state. The caller has the turn and does not hold mu. A state
// that can not come here is an error of this package or of a transport: it is
// logged, not delivered, and the stream is destroyed.
func (s *Stream) tell(state State, arg uint32) Result {
	s.mu.Lock()
	h := s.h.State
	was := s.state
	if !state.unordered() {
		if !was.mayBecome(state) {
			s.asked |= askDestroy
			s.mu.Unlock()
			s.c.log.Error("sspolicy: internal error: illegal state; the stream is destroyed",
				"streamtype", s.t.policy.Name, "from", was, "to", state)
			return DestroyMe
		}
		s.state = state
	}
	s.mu.Unlock()
	if f := s.c.opts.Hooks.State; f != nil {
		f(s.context(), s, state, arg)
	}
	if h == nil {
		return OK
	}
	return s.callState(h, state, arg)
}

// All callbacks go through the methods below, whose names insideCallback looks
// for, and so do the calls of Credentials.

func (s *Stream) callState(f func(*Stream, State, uint32) Result, state State, arg uint32) Result {
	return f(s, state, arg)
}

func (s *Stream) callRx(f func(*Stream, []byte, Flags) Result, buf []byte, flags Flags) Result {
	return f(s, buf, flags)
}

func (s *Stream) callTx(f func(*Stream, uint32, []byte) (int, Flags, Result), ordinal uint32, buf []byte) (int, Flags, Result) {
	return f(s, ordinal, buf)
}

func (s *Stream) callTransport(f func() Result) Result { return f() }

func (s *Stream) callBlob(ctx context.Context, c Credentials, b Blob, index int) (string, error) {
	return c.Blob(ctx, b, index)
}

func (s *Stream) callClientCertificate(ctx context.Context, c Credentials, index int) (*tls.Certificate, error) {
	return c.ClientCertificate(ctx, index)
}
