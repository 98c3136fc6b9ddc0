package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/machine"
	"github.com/secure-streams/sspolicy/runtime/internal/timers"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Handlers are the callbacks of a stream. Any of them may be nil: without Rx,
// payload is dropped; without Tx, nothing is sent; without State, the result for
// each state is OK.
//
// A panic in a callback ends the program, unless the caller of NewStream or the
// transport recovers it. The stream has then ended without further callbacks.
type Handlers struct {
	// State is called for each state that the stream reaches. The meaning of arg
	// depends on the state; usually it is 0.
	State func(s *Stream, state State, arg uint32) Result

	// Rx receives payload. buf is valid only during the call. The transport does
	// not read more until Rx returns, so a slow reader slows the peer down; see
	// also [Stream.PauseRx].
	Rx func(s *Stream, buf []byte, flags Flags) Result

	// Tx writes payload to buf and returns its size and flags that describe its
	// position in the message. ordinal counts the Tx calls of this stream from 0.
	// len(buf) is at least 1 and may vary from call to call. A Tx that has nothing
	// to send returns TxDontSend, and is called again after the next RequestTx. If
	// streamtypes share a request, [Stream.Rideshare] returns the one whose message
	// is due.
	Tx func(s *Stream, ordinal uint32, buf []byte) (n int, flags Flags, r Result)

	// RxClosed is called when the peer of a raw connection sends no more, after the
	// last Rx. The connection ends after the data that the program has requested to
	// send by then. If RxClosed calls PauseRx, that is delayed until ResumeRx.
	RxClosed func(s *Stream)

	// TxFailed is called when no more can be sent on a connection from which
	// payload may still arrive.
	TxFailed func(s *Stream, err error)
}

// Hooks are functions that observe the streams of a context, for metrics and
// traces. Any of them may be nil, which costs nothing. They are called while a
// stream is busy: they must be quick, and may call SetMetadata and the methods of a
// Stream that only read. Those of one stream never run at the same time.
//
// Package github.com/secure-streams/sspolicy/runtime/otel makes Hooks for
// OpenTelemetry.
type Hooks struct {
	// State is called for each state, before the State callback of the program. An
	// attempt begins with StateConnecting. It ends with the next StateUnreachable,
	// StateDisconnected or StateDestroying, when [Stream.Err] returns the reason.
	// ctx is the context of Fetch, Open or WithContext, or context.Background().
	State func(ctx context.Context, s *Stream, state State, arg uint32)

	// Wait is called with the time until the next attempt.
	Wait func(ctx context.Context, s *Stream, d time.Duration)

	// Rx and Tx are called with the size in bytes of each piece of payload: Rx
	// before the program's callback, Tx after it.
	Rx func(ctx context.Context, s *Stream, n int)
	Tx func(ctx context.Context, s *Stream, n int)
}

// An engine is shared by the streams of a context.
type engine struct {
	env    *transport.Env
	timers *timers.Timers // of env
	log    Logger
	hooks  Hooks
	jitter func() uint16
	links  sync.Pool // of *link
	owner  owner
}

// An owner has the list of streams and their types.
type owner interface {
	// renew moves a stream to the current type of its name. The caller has the
	// turn, and no attempt is running. After an error the stream is unchanged.
	renew(*Stream) error

	// remove removes a stream that has ended from the list.
	remove(*Stream)
}

// A Stream is one use of a streamtype. It outlives its connections: unless the
// policy sets opportunistic, it reconnects after a loss, as often as the policy's
// retry conceals failures. While idle it holds no goroutine or connection. Its
// methods are safe for concurrent use, also from its callbacks, and never block.
type Stream struct {
	e          *engine
	t          *streamType // written with the turn, mu, and mu of the context; any one of them suffices to read it
	prev, next *Stream     // list of the context, guarded by its mu

	// The goroutine that sets busy has the turn: only it may call back, until it
	// clears busy. Before it does, it runs the machine (see settleAndUnlock), so
	// that no request made in the meantime is lost.
	mu      sync.Mutex
	machine machine.Machine

	h        Handlers
	role     *role         // of a server streamtype; nil for a client
	remote   *remote       // nil unless a driver executes the stream
	link     *link         // of the attempt; nil when idle
	retry    *timers.Timer // of the wait for the next attempt; nil if there is none
	timeout  *timers.Timer // of StartTimeout; nil if it does not run
	meta     *metadata     // nil until it is used
	attached *attachment   // of the transport; nil until it is used
	settings
	txLen   uint64
	ordinal uint32 // of the next Tx
	busy    bool   // see mu
	wantsTx bool   // RequestTx has been called and no Tx since
	paused  bool   // by PauseRx
	captive bool   // see CaptivePortal
	killed  bool   // see kill
	err     error
}

// An attachment is the data that a transport keeps with a stream.
type attachment struct {
	data any
	transport.Option
}

func (s *Stream) attach(o transport.Option) {
	s.attached = &attachment{o.Data(), o}
	s.machine.Accepted = o.Accepted
	if o.Connect {
		s.machine.Start()
	}
}

// data returns the data of the transport. The first call stores the result of make.
func (s *Stream) data(newData func() any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached == nil {
		s.attached = &attachment{data: newData()}
	}
	return s.attached.data
}

// metadataLocked returns the metadata of the stream, for modification.
func (s *Stream) metadataLocked() *metadata {
	if s.meta == nil {
		s.meta = newMetadata(s.t)
	}
	return s.meta
}

// context returns the context for hooks.
func (s *Stream) context() context.Context {
	return cmp.Or(s.hooksContext, context.Background())
}

// create delivers the first states of a stream. It reports whether the stream still
// exists.
func (s *Stream) create() bool {
	done := false
	defer s.endUnless(&done)
	s.mu.Lock()
	if s.remote != nil || s.t.stream.NailedUp && s.role == nil {
		s.machine.Start()
	}
	l, gone := s.settleAndUnlock()
	if l != nil {
		if o, ok := l.t.connector.(transport.Opener); ok {
			if err := o.Open(l); err != nil {
				if s.finish(l, err) {
					l, gone = s.settleAndUnlock()
				} else { // abandoned
					s.mu.Lock()
					l, gone = nil, s.machine.Gone()
					s.mu.Unlock()
				}
			}
		}
		if l != nil {
			go s.work(l)
		}
	}
	done = true
	return !gone
}

// endUnless ends a stream whose callback has not returned, because it panicked or
// ended its goroutine. It is deferred, without mu held.
func (s *Stream) endUnless(returned *bool) {
	if !*returned {
		s.kill()
	}
}

// callUnlocked runs a callback without mu. If it does not return, the stream ends. The
// caller has the turn and mu.
func (s *Stream) callUnlocked(f func()) {
	s.mu.Unlock()
	returned := false
	defer s.endUnless(&returned)
	f()
	returned = true
	s.mu.Lock()
}

// kill ends a stream without a callback.
func (s *Stream) kill() {
	s.mu.Lock()
	if s.killed {
		s.mu.Unlock()
		return
	}
	s.killed = true
	s.machine.Kill()
	s.stopRetryLocked()
	s.stopTimeoutLocked()
	if l := s.link; l != nil {
		l.phase, l.spent = finished, true
		if l.late != nil {
			l.late.Stop()
		}
		l.interruptLocked(nil)
		l.broadcastLocked()
	}
	s.dropLinkLocked()
	s.mu.Unlock()
	s.remove()
}

// RequestTx requests one call of Tx. If the stream is idle, it starts an attempt,
// after POLL, without resetting the count of failures. Two requests before a Tx
// count as one. The end of a connection discards a request. The error is nil or
// ErrClosed.
func (s *Stream) RequestTx() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requestTxLocked()
}

// RequestTxLen is like RequestTx, and announces that the next message has n bytes;
// 0 means unknown. Over HTTP the length becomes the content-length of a POST, PUT
// or PATCH, unless the policy sets http_no_content_length. It holds until an HTTP
// transaction is complete, including its retries. If streamtypes share the request
// (rideshare), n is the total length of their messages, without the framing of the
// parts of a multipart request.
func (s *Stream) RequestTxLen(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announceLocked(n)
	return s.requestTxLocked()
}

// announceLocked announces the length of the next message.
func (s *Stream) announceLocked(n uint64) {
	if r := s.remote; r != nil {
		r.requests.Announced = n != 0 || s.txLen != 0 || r.requests.Announced
	}
	s.txLen = n
}

func (s *Stream) requestTxLocked() error {
	if s.machine.Destroying() {
		return s.errClosedLocked()
	}
	s.wantTxLocked()
	if s.machine.Attempting() {
		if s.link != nil { // nil during renew; the attempt will ask
			s.link.signalTxLocked()
		}
	} else if s.machine.Request() {
		s.wakeLocked()
	}
	return nil
}

// wantTxLocked records a request for Tx.
func (s *Stream) wantTxLocked() {
	s.wantsTx = true
	if s.remote != nil {
		s.remote.requests.Send = true
	}
}

// Connect starts an attempt at once, without POLL, and resets the count of
// failures. It cuts short a wait for a retry. It has no effect if the stream is
// connected or an attempt is running. The error is nil or ErrClosed.
func (s *Stream) Connect() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine.Destroying() {
		return s.errClosedLocked()
	}
	if s.remote != nil {
		s.remote.requests.Connect = true
		if s.runningLocked() {
			s.link.signalLocked()
		}
	}
	if s.machine.Connect() {
		s.wakeLocked()
	}
	return nil
}

// PauseRx stops the delivery of payload until ResumeRx, so that the peer has to
// wait. Tx is still called. A piece whose delivery has begun is not stopped, nor
// are pieces without payload: the end of a message, and figures of perf. A
// transport with an undelivered piece stops reading, so it may notice the end of
// the connection only after ResumeRx.
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
		s.link.resumeLocked()
	}
}

// PendingRx returns the number of bytes that have arrived and wait for ResumeRx.
func (s *Stream) PendingRx() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return 0
	}
	return s.link.pending
}

// Unacknowledged returns the number of messages that Tx has passed on the current
// connection and that the peer has not answered. Over mqtt the answer is
// QOS_ACK_REMOTE or QOS_NACK_REMOTE, over HTTP the headers of the response; other
// protocols have none, and the result is 0. In DISCONNECTED and UNREACHABLE it is
// the number of messages that may be lost.
func (s *Stream) Unacknowledged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return 0
	}
	return int(s.link.unacked)
}

// drain waits until no message is unacknowledged, or done is closed. It returns the
// number of unacknowledged messages.
func (s *Stream) drain(done <-chan struct{}) int {
	s.mu.Lock()
	l := s.link
	if l == nil || l.unacked == 0 {
		s.mu.Unlock()
		return 0
	}
	if l.quiet == nil {
		l.quiet = make(chan struct{})
	}
	quiet := l.quiet
	s.mu.Unlock()
	select {
	case <-quiet:
	case <-done:
	}
	return s.Unacknowledged()
}

// AddPeerTxCredit allows n more bytes of payload on the current connection. It has
// no effect without WithPeerTxCredit.
func (s *Stream) AddPeerTxCredit(n uint32) {
	s.credit.Add(uint64(n))
	if s.remote == nil || s.credit == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remote.requests.Credit += uint64(n)
	if s.link != nil {
		s.link.signalLocked()
	}
}

// Destroy closes the connection and ends the stream: it delivers DISCONNECTED, if
// the stream was connected, and DESTROYING as the last state. It does not wait for
// them. In one of the stream's own callbacks it acts like the result DestroyMe.
func (s *Stream) Destroy() { s.destroy(false, ErrClosed) }

// destroy implements Destroy. The cause is ErrClosed, ErrPolicyChanged or, for a
// listener, the reason why it cannot accept. If here is set, it delivers the last
// states itself if possible.
func (s *Stream) destroy(here bool, cause error) {
	if p := s.portOf(); p != nil && p.close(cause) {
		return
	}
	s.destroyNow(here, cause)
}

// destroyNow is destroy for a stream without clients.
func (s *Stream) destroyNow(here bool, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine.Destroying() {
		return
	}
	running := s.runningLocked()
	if cause != ErrClosed && s.machine.Listener {
		s.err = cause
	}
	if cause == ErrPolicyChanged {
		s.machine.Replace()
	} else {
		s.machine.Destroy()
	}
	switch {
	case running:
		s.link.endLocked(cause)
	case s.busy || s.link != nil:
		// The goroutine that has the turn, or is about to take it in finish, will
		// see the request.
	case here:
		s.busy = true
		s.settleAndUnlock()
		s.mu.Lock()
	default:
		s.wakeLocked()
	}
}

// StartTimeout starts or restarts the stream's timer: after d, TIMEOUT is delivered
// once. If d is 0 or negative, the policy's timeout_ms applies; if that is 0 too,
// StartTimeout has no effect. The timer is canceled by CancelTimeout, by the end of
// the connection, unless an HTTP stream is going to retry, and by the end of the
// stream. It survives failed attempts.
func (s *Stream) StartTimeout(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.machine.Gone():
		return
	case s.remote != nil:
		s.startTimeoutLocked(d)
		return
	case d <= 0:
		d = s.t.stream.Timeout
	}
	if d > 0 {
		s.stopTimeoutLocked()
		s.startTimerLocked(d)
	}
}

// startTimerLocked starts the timer of StartTimeout, which must not be running.
func (s *Stream) startTimerLocked(d time.Duration) {
	s.timeout = &timers.Timer{Owner: (*expiry)(s)}
	s.e.timers.Start(s.timeout, d)
}

// CancelTimeout stops the timer of StartTimeout. No TIMEOUT is delivered after it,
// except one that is being delivered already.
func (s *Stream) CancelTimeout() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remote != nil {
		s.cancelTimeoutLocked()
		return
	}
	s.stopTimeoutLocked()
}

// An expiry is a Stream in the role of the owner of its timers.
type expiry Stream

func (x *expiry) Expire(t *timers.Timer) {
	s := (*Stream)(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch t {
	case s.timeout:
		s.timeout = nil
		if s.remote != nil {
			s.remote.limited = false
		}
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
		s.e.timers.Stop(s.timeout)
		s.timeout = nil
	}
	s.machine.CancelTimeout()
}

func (s *Stream) stopRetryLocked() {
	if s.retry != nil {
		s.e.timers.Stop(s.retry)
		s.retry = nil
	}
}

func (s *Stream) errClosedLocked() error {
	return fmt.Errorf("sspolicy: streamtype %q: %w", s.t.stream.Name, ErrClosed)
}

// runningLocked reports whether the transport's Run has been called, or is about to
// be, and has not returned.
func (s *Stream) runningLocked() bool { return s.link != nil && s.link.phase == attempting }

// wakeLocked starts a goroutine that runs the machine, unless the goroutine that
// has the turn will run it anyway.
func (s *Stream) wakeLocked() {
	switch {
	case s.busy:
	case s.link == nil:
		s.busy = true
		s.link = newLink(s)
		s.link.startLocked()
	case s.link.phase == attempting: // the goroutine of the stream is in Run
		s.busy = true
		go func() {
			s.mu.Lock()
			s.settleAndUnlock()
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
			err = l.t.run(l)
		}
		if !s.finish(l, err) {
			return
		}
		l, _ = s.settleAndUnlock()
	}
}

// abandon continues without a transport that does not end. Its Run may return at
// any later time.
func (s *Stream) abandon(l *link) {
	s.mu.Lock()
	if s.busy && l.phase == attempting { // a callback is slow, not the transport
		l.late.Reset(abandonAfter)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if !s.finish(l, nil) {
		return
	}
	name, cause := s.t.stream.Name, l.cause
	s.mu.Unlock()
	s.e.log.Warn("sspolicy: a transport did not end in time; the stream continues without it", "streamtype", name, "cause", cause)
	s.mu.Lock()
	next, _ := s.settleAndUnlock()
	s.work(next)
}

// settleAndUnlock runs the machine until it yields, and releases the turn and mu,
// which the caller has. If an attempt has begun it returns its link, whose Run the
// caller must call. It also reports whether the stream has ended.
func (s *Stream) settleAndUnlock() (started *link, gone bool) {
	for {
		if s.link != nil && s.link.phase == returned {
			s.yieldAndUnlock() // to finish, which settles
			return nil, false
		}
		switch e := s.machine.Next(); e.Do {
		case machine.Begin:
			s.prepareLocked()
			s.machine.Answer(e, OK)
		case machine.Attempt:
			started = s.link
			started.phase = attempting
			started.startTimerLocked()
			if s.remote != nil {
				s.remote.restart(s.txLen)
			}
			s.credit.Restart()
			s.machine.Answer(e, OK)
		case machine.Cut:
			cause := ErrDisconnected
			if e.Destroy {
				cause = ErrClosed
			}
			s.link.endLocked(cause)
		case machine.Wait:
			s.backOffLocked(e)
		case machine.Release:
			s.releaseAndUnlock()
			return nil, true
		case machine.Yield:
			if !s.machine.Running() {
				s.dropLinkLocked()
			}
			s.yieldAndUnlock()
			return started, false
		case machine.Deliver, machine.Illegal:
			s.machine.Answer(e, s.deliverLocked(e))
		}
	}
}

// prepareLocked begins an attempt: it updates the streamtype and provides a link.
// It stores an error as the result of the attempt.
func (s *Stream) prepareLocked() {
	s.stopRetryLocked()
	var err error
	if s.t.stale.Load() && s.role == nil {
		s.mu.Unlock()
		err = s.e.owner.renew(s)
		s.mu.Lock()
	}
	if s.link != nil && s.link.phase != unused {
		s.dropLinkLocked()
	}
	if s.link == nil {
		s.link = newLink(s)
	}
	s.link.phase, s.link.t, s.link.cause = preparing, s.t, err
}

// resolveLocked determines the endpoint and URL of an attempt.
func (s *Stream) resolveLocked() {
	l := s.link
	s.captive = false
	s.meta.forgetReceived()
	if l.cause == nil {
		l.target, l.cause = s.t.endpoint.Resolve(s.meta.own())
	}
	l.url = s.t.url.Expand(s.meta.own())
	if s.t.stream.Perf && l.cause == nil {
		l.perf = new(perf)
	}
}

// deliverLocked carries out a machine's Deliver or Illegal. It releases mu during
// the callback.
func (s *Stream) deliverLocked(e machine.Effect) Result {
	if e.Do == machine.Illegal {
		name, from := s.t.stream.Name, s.machine.State()
		s.mu.Unlock()
		s.e.log.Error("sspolicy: internal error: illegal state; the stream is destroyed", "streamtype", name, "from", from, "to", e.State)
		s.mu.Lock()
		return DestroyMe
	}
	l, h := s.link, s.h
	switch e.State {
	case StateConnecting:
		if s.remote == nil {
			s.resolveLocked()
		}
	case StateDestroying:
		if s.machine.Replaced() {
			s.err = ErrPolicyChanged
		}
		s.stopRetryLocked()
		s.stopTimeoutLocked()
		s.dropLinkLocked()
	}
	s.mu.Unlock()
	returned := false
	defer s.endUnless(&returned)
	if l != nil && (e.State == StateUnreachable || e.State == StateConnected) {
		l.deliverPerf(h)
	}
	if f := s.e.hooks.State; f != nil {
		f(s.context(), s, e.State, e.Arg)
	}
	r := OK
	if h.State != nil {
		r = h.State(s, e.State, e.Arg)
	}
	returned = true
	s.mu.Lock()
	if e.State == StateConnecting && r != OK && r != DestroyMe {
		s.err = ErrDisconnected
		if a := s.attached; a != nil && a.Declined != nil {
			a.Declined()
		}
	}
	return r
}

// backOffLocked starts the wait for the next attempt.
func (s *Stream) backOffLocked(e machine.Effect) {
	d := e.Delay(s.t.stream.Retry, s.e.jitter())
	s.retry = &timers.Timer{Owner: (*expiry)(s), Wakes: s.t.stream.SwakeValidity}
	s.e.timers.Start(s.retry, d)
	if f := s.e.hooks.Wait; f != nil {
		s.mu.Unlock()
		f(s.context(), s, d)
		s.mu.Lock()
	}
}

// releaseAndUnlock ends a stream after DESTROYING. It releases the turn and mu.
func (s *Stream) releaseAndUnlock() {
	s.h = Handlers{}
	s.yieldAndUnlock()
	s.remove()
}

// remove removes a stream that has ended from its context.
func (s *Stream) remove() {
	if a := s.attached; a != nil && a.End != nil {
		a.End()
	}
	if p := s.portOf(); p != nil {
		p.close(ErrClosed)
		defer close(p.gone)
	}
	s.e.owner.remove(s)
}

// dropLinkLocked ends the use of the link.
func (s *Stream) dropLinkLocked() {
	if l := s.link; l != nil {
		s.link = nil
		l.recycleLocked()
	}
}

// yieldAndUnlock releases the turn and mu.
func (s *Stream) yieldAndUnlock() {
	s.yieldLocked()
	s.mu.Unlock()
}

// yieldLocked releases the turn.
func (s *Stream) yieldLocked() {
	s.busy = false
	if l := s.link; l != nil {
		if l.late != nil && l.phase == attempting { // the transport may have waited for the callback
			l.late.Reset(abandonAfter)
		}
		l.broadcastLocked()
	}
}

// finish ends an attempt or connection whose Run has returned err. It acquires the
// turn and mu, and keeps both. If the attempt has been abandoned it returns false,
// with neither held.
func (s *Stream) finish(l *link, err error) bool {
	s.mu.Lock()
	if l.phase != attempting {
		s.mu.Unlock()
		return false
	}
	l.phase = returned
	l.broadcastLocked()
	for s.busy {
		l.awaitTurnLocked()
	}
	s.busy = true
	l.phase = finished
	l.stopTimerLocked()
	if l.late != nil {
		l.late.Stop()
	}
	if l.cause != nil {
		err = l.cause
	}
	connected := s.machine.Connected()
	switch {
	case connected && l.done:
		err = nil
		s.txLen = 0
	case !connected && err == nil:
		err = errors.New("sspolicy: the transport ended without an error")
	}
	var f machine.Failure
	if s.remote != nil {
		f, err = s.linkLostLocked(l, err)
	} else {
		f = machine.Failure{
			Failed: err != nil, Brief: connected && time.Since(l.since) < s.t.stream.Retry.Steady(),
			Arg: unreachableArg(err), Final: l.final, Least: l.least,
		}
		if err != nil {
			err = l.t.endpoint.Hide(err, l.target)
		}
	}
	s.err = err
	if err != nil {
		s.err = transport.Printable(err)
	}
	again := s.machine.Ended(f)
	if connected {
		s.wantsTx = false
		if s.remote == nil && (!again || !s.t.stream.IsHTTP()) {
			s.stopTimeoutLocked()
		}
	}
	return true
}

// unreachableArg returns 1 for a failure of the resolver, but 0 if the resolver
// answers that the name does not exist, as in lws.
func unreachableArg(err error) uint32 {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsNotFound {
		return 1
	}
	return 0
}
