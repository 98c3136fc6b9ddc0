package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/machine"
	"github.com/secure-streams/sspolicy/runtime/internal/timers"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Stream is one use of a streamtype. It outlives its connections. While it is
// idle it holds no goroutine, timer or connection. Its methods may be called from
// any goroutine, including from its callbacks, and never block.
type Stream struct {
	c          *Context
	t          *streamType // written under the turn, mu, and mu of the context; any one of them suffices to read it
	prev, next *Stream     // list of the context, guarded by its mu

	// Whoever sets busy has the turn: it alone may call back, until it clears
	// busy. Before that it runs the machine, see settleLocked, so that requests
	// made in the meantime are not forgotten.
	mu      sync.Mutex
	busy    bool
	machine machine.Machine

	h            Handlers
	link         *link             // of the attempt; nil when idle
	retry        *timers.Timer     // of the wait for the next attempt; nil if there is none
	timeout      *timers.Timer     // of StartTimeout; nil if it does not run
	meta         []policy.Value    // set by the program, then sent by the peer
	direct       *directHeaders    // of direct_proto_str; nil until it is used
	attached     *attachment       // of the transport; nil until it is used
	credit       *transport.Credit // nil without WithPeerTxCredit
	hooksContext context.Context   // nil means Background
	txLen        uint64
	pending      int    // bytes that wait for ResumeRx
	ordinal      uint32 // of the next Tx
	wantsTx      bool   // RequestTx has been called and no Tx since
	paused       bool   // by PauseRx
	captive      bool   // see CaptivePortal
	replaced     bool   // destroyed because of ErrPolicyChanged
	err          error
}

// create delivers the first states of a stream. It reports whether the stream
// lives on.
func (s *Stream) create() bool {
	finished := false
	defer func() {
		if !finished { // a callback panicked, or ended the goroutine
			s.mu.Lock()
			s.machine.Kill()
			s.stopRetryLocked()
			s.stopTimeoutLocked()
			s.dropLocked()
			s.mu.Unlock()
			s.remove()
		}
	}()
	s.mu.Lock()
	if s.t.stream.NailedUp {
		s.machine.Start()
	}
	l, gone := s.settleLocked()
	if l != nil {
		if o, ok := s.t.connector.(transport.Opener); ok && o.Open(l) != nil {
			l.run() // which ends at once
			s.mu.Lock()
			gone = s.machine.Gone()
			s.mu.Unlock()
		} else {
			go l.run()
		}
	}
	finished = true
	return !gone
}

// String returns the name of the streamtype. It, and GoString, keep fmt from
// printing the contents of a stream, such as metadata.
func (s *Stream) String() string { return s.StreamType().Name }

// GoString is String, for %#v.
func (s *Stream) GoString() string { return s.String() }

// StreamType returns what the policy says about the stream. After an Overlay it
// is what the old policy said, until the next attempt.
func (s *Stream) StreamType() *policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t.stream
}

// Rideshares returns the streamtypes whose messages make up one request of the
// stream, in order: its own, and those that follow by rideshare.
func (s *Stream) Rideshares() []*policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t.chain
}

// Rideshare returns the streamtype whose message Tx is to provide. Each attempt
// begins with the stream's own; after a Tx has ended its message with FlagEOM it
// is the next of Rideshares.
func (s *Stream) Rideshare() *policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return s.t.stream
	}
	return s.t.chain[s.link.ride]
}

// CaptivePortal reports whether the server has answered the latest attempt with a
// redirect although the policy says http_fail_redirect: a captive portal has
// probably answered in its place. The redirect is still followed if the policy
// says allow_redirects.
func (s *Stream) CaptivePortal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.captive
}

// State returns the latest state that was delivered, or is being delivered, user
// states excepted.
func (s *Stream) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.State()
}

// Status returns the HTTP status of the response from CONNECTED to DISCONNECTED,
// else 0. lws reports it only through the states of http_resp_map.
func (s *Stream) Status() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return 0
	}
	return s.link.answer.Status
}

// Err returns why the latest attempt failed, or the latest connection ended; nil
// if it did what it was for, or is still good. It is meant for people, and for
// [errors.Is] and [errors.As]: ErrTimeout, ErrDisconnected, a *TrustError, and
// the errors of net, crypto/tls and the transport.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// SetHandlers replaces the callbacks that are not nil in h, from the next event
// on.
func (s *Stream) SetHandlers(h Handlers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine.Gone() {
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
	if h.TxFailed != nil {
		s.h.TxFailed = h.TxFailed
	}
}

// RequestTx requests one call of Tx. If the stream is not connected, it starts an
// attempt, after POLL, within the present series of retries. During an attempt or
// a wait for the next one it starts nothing. Two requests before a Tx count as
// one. The error is nil or ErrClosed.
func (s *Stream) RequestTx() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requestTxLocked()
}

// RequestTxLen is RequestTx, and announces that the next message has n bytes. Over
// HTTP that becomes the content-length of a POST, PUT or PATCH, unless the policy
// says http_no_content_length. 0 means that the length is unknown. It holds until
// an HTTP transaction is complete, and so for its retries. Where streamtypes share
// the request (rideshare), n is the length of all messages together, without the
// framing of the parts of a multipart request.
func (s *Stream) RequestTxLen(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txLen = n
	return s.requestTxLocked()
}

func (s *Stream) requestTxLocked() error {
	if s.machine.Destroying() {
		return s.errClosedLocked()
	}
	s.wantsTx = true
	if s.machine.Attempting() {
		s.link.signalTx()
	} else if s.machine.Request() {
		s.wakeLocked()
	}
	return nil
}

// Connect starts an attempt at once and a new series of retries, without POLL. It
// cuts a wait for a retry short. If the stream is connected, or an attempt is
// running, it changes nothing. The error is nil or ErrClosed.
func (s *Stream) Connect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine.Destroying() {
		return s.errClosedLocked()
	}
	if s.machine.Connect() {
		s.wakeLocked()
	}
	return nil
}

// PauseRx stops the delivery of payload until ResumeRx, so that the peer has to
// wait. States are delivered, and Tx is called, all the same. A piece whose
// delivery has begun is not stopped.
func (s *Stream) PauseRx() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = true
}

// ResumeRx ends PauseRx.
func (s *Stream) ResumeRx() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = false
	if s.link != nil {
		s.link.broadcastLocked()
	}
}

// PendingRx returns how many bytes have arrived and wait for ResumeRx.
func (s *Stream) PendingRx() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// AddPeerTxCredit allows n more bytes of payload on the present connection; see
// WithPeerTxCredit, without which it does nothing.
func (s *Stream) AddPeerTxCredit(n uint32) { s.credit.Add(uint64(n)) }

// Destroy closes the connection and ends the stream: DISCONNECTED, if the stream
// was connected, and DESTROYING are delivered, and nothing after them. It does
// not wait for them. In one of the stream's own callbacks it acts like the result
// DestroyMe.
func (s *Stream) Destroy() { s.destroy(false, ErrClosed) }

// destroy is Destroy with a cause, ErrClosed or ErrPolicyChanged. If here is set
// it delivers the last states itself if it can.
func (s *Stream) destroy(here bool, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine.Destroying() {
		return
	}
	running := s.runningLocked()
	s.machine.Destroy()
	s.replaced = cause == ErrPolicyChanged
	switch {
	case running:
		s.link.endLocked(cause)
	case s.busy || s.link != nil:
		// Whoever has the turn, or is about to take it in finish, will see.
	case here:
		s.busy = true
		s.settleLocked()
		s.mu.Lock()
	default:
		s.wakeLocked()
	}
}

// StartTimeout starts or restarts the stream's timer: after d, TIMEOUT is
// delivered once. A d of 0 or less means the policy's timeout_ms; if that is 0
// too nothing happens. CancelTimeout cancels the timer, and so do the end of the
// connection, unless an HTTP stream is going to retry, and the end of the stream.
// It survives failed attempts.
func (s *Stream) StartTimeout(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d <= 0 {
		d = s.t.stream.Timeout
	}
	if d <= 0 || s.machine.Gone() {
		return
	}
	s.stopTimeoutLocked()
	s.timeout = &timers.Timer{Owner: (*expiry)(s)}
	s.c.timers.Start(s.timeout, d)
}

// CancelTimeout stops the timer of StartTimeout. A TIMEOUT that is not being
// delivered already is not delivered.
func (s *Stream) CancelTimeout() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimeoutLocked()
}

// An expiry is a Stream as the owner of its timers.
type expiry Stream

func (x *expiry) Expire(t *timers.Timer) {
	s := (*Stream)(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch t {
	case s.timeout:
		s.timeout = nil
		s.machine.TimedOut()
	case s.retry:
		s.retry = nil
		s.machine.WaitOver()
	default:
		return // stopped or replaced meanwhile
	}
	s.wakeLocked()
}

func (s *Stream) stopTimeoutLocked() {
	if s.timeout != nil {
		s.c.timers.Stop(s.timeout)
		s.timeout = nil
	}
	s.machine.CancelTimeout()
}

func (s *Stream) stopRetryLocked() {
	if s.retry != nil {
		s.c.timers.Stop(s.retry)
		s.retry = nil
	}
}

func (s *Stream) errClosedLocked() error {
	return fmt.Errorf("sspolicy: streamtype %q: %w", s.t.stream.Name, ErrClosed)
}

// runningLocked reports whether the transport's Run has been called, or is about
// to be, and has not returned.
func (s *Stream) runningLocked() bool { return s.link != nil && s.link.phase == running }

// wakeLocked starts a goroutine that runs the machine, unless somebody has the
// turn, and so runs it anyway.
func (s *Stream) wakeLocked() {
	switch {
	case s.busy:
	case s.link == nil:
		s.busy = true
		s.link = s.c.newLink(s)
		go s.link.run()
	case s.link.phase == running: // the goroutine of the stream is in Run
		s.busy = true
		go func() {
			s.mu.Lock()
			s.settleLocked()
		}()
	}
}

// work is the goroutine of a stream that is not idle, from an attempt on.
func (s *Stream) work(l *link) {
	for l != nil {
		s.mu.Lock()
		err := l.cause
		s.mu.Unlock()
		if err == nil {
			err = s.t.connector.Run(l.runContext(), l)
		}
		s.finish(l, err)
		l, _ = s.settleLocked()
	}
}

// settleLocked runs the machine until it yields, and gives up the turn and mu,
// which the caller has. If an attempt has begun it returns the link of it; the
// caller has to see to its Run. It also reports whether the stream has ended.
func (s *Stream) settleLocked() (begun *link, gone bool) {
	for {
		if s.link != nil && s.link.phase == returned {
			s.passLocked() // to finish, which settles
			return nil, false
		}
		switch e := s.machine.Next(); e.Do {
		case machine.Prepare:
			s.prepareLocked()
			s.machine.Answer(e, OK)
		case machine.Attempt:
			begun = s.link
			begun.phase = running
			begun.startTimerLocked()
			s.credit.Restart()
			s.machine.Answer(e, OK)
		case machine.Cut:
			cause := ErrDisconnected
			if e.Destroy {
				cause = ErrClosed
			}
			s.link.endLocked(cause)
		case machine.Wait:
			s.waitLocked(e)
		case machine.Release:
			s.releaseLocked()
			return nil, true
		case machine.Yield:
			if !s.machine.Running() {
				s.dropLocked()
			}
			s.passLocked()
			return begun, false
		default:
			s.machine.Answer(e, s.deliverLocked(e))
		}
	}
}

// prepareLocked begins an attempt: it makes the streamtype current and provides a
// link. Its error, if any, is that of the attempt.
func (s *Stream) prepareLocked() {
	s.stopRetryLocked()
	var err error
	if s.t.stale.Load() {
		s.mu.Unlock()
		err = s.renew()
		s.mu.Lock()
	}
	if s.link != nil && s.link.phase != idle {
		s.dropLocked()
	}
	if s.link == nil {
		s.link = s.c.newLink(s)
	}
	s.link.phase, s.link.t, s.link.cause = starting, s.t, err
}

// resolveLocked fixes the endpoint and URL of an attempt.
func (s *Stream) resolveLocked() {
	l := s.link
	s.forgetReceivedLocked()
	if l.cause == nil {
		l.target, l.cause = s.t.endpoint.Resolve(s.ownLocked())
	}
	l.url = s.t.url.Expand(s.ownLocked())
	if s.t.stream.Perf && l.cause == nil {
		l.perf = new(perf)
	}
}

// deliverLocked does a machine's Deliver or Illegal, without mu in the callback.
func (s *Stream) deliverLocked(e machine.Effect) Result {
	if e.Do == machine.Illegal {
		s.c.log.Error("sspolicy: internal error: illegal state; the stream is destroyed",
			"streamtype", s.t.stream.Name, "from", s.machine.State(), "to", e.State)
		return DestroyMe
	}
	l, h := s.link, s.h
	switch e.State {
	case StateConnecting:
		s.resolveLocked()
	case StateDestroying:
		if s.replaced {
			s.err = ErrPolicyChanged
		}
		s.stopRetryLocked()
		s.stopTimeoutLocked()
		s.dropLocked()
	}
	s.mu.Unlock()
	if l != nil && (e.State == StateUnreachable || e.State == StateConnected) {
		l.deliverPerf(h)
	}
	if f := s.c.opts.Hooks.State; f != nil {
		f(s.context(), s, e.State, e.Arg)
	}
	r := OK
	if h.State != nil {
		r = h.State(s, e.State, e.Arg)
	}
	s.mu.Lock()
	if e.State == StateConnecting && r != OK && r != DestroyMe {
		s.err = ErrDisconnected
		if a := s.attached; a != nil && a.Declined != nil {
			a.Declined()
		}
	}
	return r
}

// waitLocked starts the wait for the next attempt.
func (s *Stream) waitLocked(e machine.Effect) {
	d := e.Delay(s.t.stream.Retry, s.c.opts.Jitter())
	s.retry = &timers.Timer{Owner: (*expiry)(s), Wakes: s.t.stream.SwakeValidity}
	s.c.timers.Start(s.retry, d)
	if f := s.c.opts.Hooks.Wait; f != nil {
		s.mu.Unlock()
		f(s.context(), s, d)
		s.mu.Lock()
	}
}

// releaseLocked ends a stream after DESTROYING. It gives up the turn and mu.
func (s *Stream) releaseLocked() {
	s.h = Handlers{}
	s.passLocked()
	s.remove()
}

// remove takes a stream that has ended out of its context.
func (s *Stream) remove() {
	if a := s.attached; a != nil && a.End != nil {
		a.End()
	}
	s.c.remove(s)
}

// dropLocked ends the use of the link.
func (s *Stream) dropLocked() {
	if l := s.link; l != nil {
		s.link = nil
		l.release()
	}
}

// passLocked gives up the turn and mu.
func (s *Stream) passLocked() {
	s.yieldLocked()
	s.mu.Unlock()
}

// yieldLocked gives up the turn.
func (s *Stream) yieldLocked() {
	s.busy = false
	if s.link != nil {
		s.link.broadcastLocked()
	}
}

// finish ends an attempt or connection whose Run has returned err. It takes the
// turn and mu, and keeps both.
func (s *Stream) finish(l *link, err error) {
	s.mu.Lock()
	l.phase = returned
	l.broadcastLocked()
	for s.busy {
		l.waitLocked()
	}
	s.busy = true
	l.phase = ended
	l.stopTimerLocked()
	if l.cause != nil {
		err = l.cause
	}
	connected := s.machine.Connected()
	switch {
	case connected && l.done:
		err = nil
		s.txLen = 0
	case !connected && err == nil:
		err = errors.New("sspolicy: the transport gave up without a reason")
	}
	s.err = err
	again := s.machine.Ended(machine.Failure{
		Failed: err != nil, Arg: unreachableArg(err), Final: l.answer.Final, Least: l.answer.RetryAfter,
	})
	if connected {
		s.wantsTx = false
		if !again || !s.t.stream.Protocol.IsHTTP() {
			s.stopTimeoutLocked()
		}
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
