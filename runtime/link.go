package runtime

import (
	"context"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/timers"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A link is the transport.Link of one attempt at a time.
type link struct {
	e   *engine
	run func() // entry point of a stream's goroutine; nil before its first use

	// All fields below are guarded by the stream's mu.
	s      *Stream
	ctx    context.Context // see Context; nil before its first use
	cancel context.CancelCauseFunc
	turn   *sync.Cond   // signals that the stream is not busy or phase changed; nil before the first wait
	timer  timers.Timer // ends the attempt

	t         *streamType // of the attempt, constant during it
	phase     linkPhase
	timing    bool        // timer has been started and not stopped
	done      bool        // Done has been called
	spent     bool        // must not be used for another attempt
	silent    bool        // requests to send are not signalled
	held      bool        // TryRx has returned false
	final     bool        // see transport.Answer
	status    int32       // HTTP status of the response
	waiting   int32       // goroutines that wait for turn
	cause     error       // why the link must end, unless the transport ended it
	onEnd     func()      // see OnEnd
	late      *time.Timer // abandons a transport that does not end; nil without cause
	ready     chan struct{}
	notify    func()
	sender    func() // of ServeTx
	loan      *loan  // nil until ServeRx is used
	target    *policy.Target
	url       string
	perf      *perf         // nil if the policy does not request figures
	least     time.Duration // the shortest wait before the next attempt
	ride      int32         // index in the chain of the streamtype
	unacked   int32         // see Stream.Unacknowledged
	pending   int           // bytes that wait for ResumeRx
	delivered int64
	since     time.Time     // time of CONNECTED
	resumed   chan struct{} // see Resumed; nil until it is used
	message   *message      // nil before the first Tx, and without acknowledgements
	quiet     chan struct{} // closed when unacked is 0 or the link ends; nil unless drain waits
}

// A message is the one that Tx is sending, over a protocol whose peer acknowledges
// each.
type message struct {
	size     uint64 // bytes so far
	length   uint64 // announced; 0 means unknown
	complete bool   // the announced length ended the latest message; an FlagEOM may follow
}

// end sets FlagEOM on the piece that completes a message of an announced length. It
// removes the FlagEOM of an empty piece that would end this message a second time.
func (m *message) end(p *transport.Piece, announced uint64) {
	if p.N == 0 && m.complete && p.Flags&(FlagSOM|FlagEOM) == FlagEOM {
		p.Flags &^= FlagEOM
		m.complete = false
		return
	}
	if announced > 0 && (m.length == 0 || m.size == 0) && !p.Empty() {
		m.length = announced
	}
	m.size += uint64(p.N)
	m.complete = m.complete && p.N == 0
	if p.N > 0 && m.size == m.length && p.Flags&FlagEOM == 0 {
		p.Flags |= FlagEOM
		m.complete = true
	}
	if p.Flags&FlagEOM != 0 {
		m.size, m.length = 0, 0
	}
}

// A linkPhase is the phase of a link in an attempt. The machine has finer states;
// this one serves the goroutines around it.
type linkPhase uint8

const (
	unused     linkPhase = iota // no attempt yet
	preparing                   // POLL and CONNECTING are being delivered
	attempting                  // Run has been called or is about to be
	returned                    // Run has returned; finish is waiting for the turn
	finished                    // finish has the turn
)

// newLink returns a link for a stream. The caller holds s.mu.
func newLink(s *Stream) *link {
	l, _ := s.e.links.Get().(*link)
	if l == nil {
		l = &link{e: s.e}
		l.timer.Owner = l
	}
	l.s = s
	return l
}

// startLocked starts the goroutine of a stream.
func (l *link) startLocked() {
	if l.run == nil {
		l.run = l.runStream
	}
	go l.run()
}

// runStream is the goroutine of a stream that is not idle. It starts with the turn,
// or with an attempt that has begun.
func (l *link) runStream() {
	s := l.s
	s.mu.Lock()
	if l.phase == unused {
		l, _ = s.settleAndUnlock()
	} else {
		s.mu.Unlock()
	}
	s.work(l)
}

// runContext returns the context of Run. It carries the client trace of the
// stream's context.
func (l *link) runContext() context.Context {
	ctx := l.Context()
	if trace := httptrace.ContextClientTrace(l.s.context()); trace != nil {
		ctx = httptrace.WithClientTrace(ctx, trace)
	}
	if l.perf != nil {
		ctx = l.perf.trace(ctx)
	}
	return ctx
}

// recycleLocked returns the link to the pool.
func (l *link) recycleLocked() {
	l.stopTimerLocked()
	l.unacked = 0
	l.signalQuietLocked()
	if l.spent || l.waiting > 0 {
		l.onEnd = nil
		l.interruptLocked(nil)
		return
	}
	*l = link{e: l.e, ctx: l.ctx, cancel: l.cancel, run: l.run, timer: timers.Timer{Owner: l}}
	l.e.links.Put(l)
}

// Context returns the context of the attempt, which interruptLocked cancels.
func (l *link) Context() context.Context {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.ctx == nil {
		l.ctx, l.cancel = context.WithCancelCause(context.Background())
		if l.cause != nil {
			l.cancel(l.cause)
		}
	}
	return l.ctx
}

// interruptLocked makes blocked calls of the transport return.
func (l *link) interruptLocked(cause error) {
	if l.cancel != nil {
		l.cancel(cause)
	}
	if f := l.onEnd; f != nil {
		l.onEnd = nil
		go f()
	}
}

func (l *link) OnEnd(f func()) bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	unused := l.onEnd != nil
	l.onEnd = f
	if f != nil && l.cause != nil {
		l.onEnd = nil
		go f()
	}
	return unused
}

// abandonAfter is how long a transport may take to end. No transport of this module
// waits longer for a peer.
const abandonAfter = 5 * time.Second

// endLocked tells the transport to end. If it does not, the stream continues
// without it.
func (l *link) endLocked(cause error) {
	if l.cause != nil {
		return
	}
	l.cause = cause
	l.spent = true
	l.interruptLocked(cause)
	l.broadcastLocked() // to a transport that waits for ResumeRx
	if b := l.loan; b != nil && !b.serving {
		b.endLocked()
	}
	// Not a timer of the context: the time that the system sleeps does not count.
	l.late = time.AfterFunc(abandonAfter, func() { l.s.abandon(l) })
}

// resumeLocked signals the end of a pause.
func (l *link) resumeLocked() {
	l.broadcastLocked()
	if l.held {
		l.held = false
		select {
		case l.resumed <- struct{}{}: // a nil channel is never ready
		default:
		}
	}
}

// broadcastLocked wakes the goroutines that wait for the turn.
func (l *link) broadcastLocked() {
	if l.waiting > 0 {
		l.turn.Broadcast()
	}
}

// awaitTurnLocked waits for broadcastLocked.
func (l *link) awaitTurnLocked() {
	if l.turn == nil {
		l.turn = sync.NewCond(&l.s.mu)
	}
	l.waiting++
	l.turn.Wait()
	l.waiting--
}

// startTimerLocked starts or restarts the time limit of the attempt. Accepted
// streams have the limits of their listener instead.
func (l *link) startTimerLocked() {
	if d := l.e.env.ConnectTimeout(); d > 0 && l.t.remote == nil && l.s.role == nil {
		l.stopTimerLocked()
		l.timing = true
		l.e.timers.Start(&l.timer, d)
	}
}

// stopTimerLocked stops the time limit of the attempt. If it has just expired,
// Expire may access the link at any later time.
func (l *link) stopTimerLocked() {
	if l.timing {
		l.timing = false
		l.spent = !l.e.timers.Stop(&l.timer) || l.spent
	}
}

// Expire is called when the time limit of the attempt has passed.
func (l *link) Expire(*timers.Timer) {
	// A link that was stopped while its timer expired is never used again, so s is
	// still the same.
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.timing && l.phase == attempting && !l.s.machine.Connected() {
		l.endLocked(ErrTimeout)
	}
}

// deliverPerf passes the figures of an attempt to Rx, once, and ignores the result.
// The caller has the turn and does not hold mu.
func (l *link) deliverPerf(h Handlers) {
	if l.perf == nil || h.Rx == nil {
		return
	}
	if figures := l.perf.take(); figures != nil {
		h.Rx(l.s, figures, FlagPerfJSON|FlagSOM|FlagEOM)
	}
}

func (l *link) Target() *policy.Target { return l.target }

func (l *link) URL() string { return l.url }

func (l *link) Metadata(item int) (value string, set bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if own := l.ownLocked(); item < len(own) {
		return own[item].Text, own[item].Set
	}
	return "", false
}

func (l *link) Expand(t *policy.Template) string {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return t.Expand(l.ownLocked())
}

// ownLocked returns the metadata that the program has set. It returns none to an
// abandoned attempt, since the metadata may be for another peer.
func (l *link) ownLocked() []policy.Value {
	if l.phase == finished {
		return nil
	}
	return l.s.meta.own()
}

func (l *link) DirectHeaders() []transport.Field {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.phase == finished {
		return nil
	}
	return l.s.meta.directHeaders().all()
}

func (l *link) Data(newData func() any) any { return l.s.data(newData) }

func (l *link) Credit() *transport.Credit { return l.s.credit }

func (l *link) Answer(a transport.Answer) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Status != 0 {
		l.perf.setStatus(a.Status)
		if l.t.stream.Protocol.IsHTTP() {
			l.status = int32(a.Status)
		}
	}
	l.least = max(l.least, a.RetryAfter)
	l.final = l.final || a.Final
	if l.phase != attempting {
		return
	}
	if h := l.t.stream.HTTP; a.Redirected && h != nil && h.FailRedirect {
		s.captive = true
	}
	if a.Header != nil && l.t.stream.DirectProtoStr {
		s.metadataLocked().newDirectHeaders().received = a.Header
	}
}

func (l *link) Receive(item int, value string) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.phase == attempting {
		l.s.metadataLocked().receive(item, value)
	}
}

func (l *link) Delivered() int64 {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.delivered
}

// notPayload is the size that acquire is called with for events that PauseRx does
// not stop.
const notPayload = -1

// acquire waits for the turn and, with size bytes of payload, for ResumeRx. It
// returns with the turn and mu held. If the link has ended it returns an error,
// with neither held.
func (l *link) acquire(size int) error {
	_, err := l.acquireWhile(size, true)
	return err
}

// acquireWhile is like acquire, but if wait is false it returns false, with neither
// held, instead of waiting for ResumeRx.
func (l *link) acquireWhile(size int, wait bool) (ok bool, err error) {
	s := l.s
	s.mu.Lock()
	for l.phase == attempting && l.cause == nil {
		if hold := s.paused && size != notPayload; hold {
			l.pending = size
			if !wait {
				l.held = true
				s.mu.Unlock()
				return false, nil
			}
		} else if !s.busy {
			break
		}
		l.awaitTurnLocked()
	}
	if size != notPayload {
		l.pending = 0
	}
	if l.phase != attempting || l.cause != nil {
		err := l.cause
		if err == nil {
			err = ErrClosed
		}
		s.mu.Unlock()
		return false, err
	}
	s.busy = true
	return true, nil
}

// release applies the result of a callback, and releases the turn and mu. An error
// means that the transport must end.
func (l *link) release(r Result) error {
	s := l.s
	if r != OK {
		s.machine.Obey(r)
	}
	if !s.machine.Pending() && l.phase == attempting {
		s.yieldLocked()
	} else {
		s.settleAndUnlock()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if l.cause == nil && l.phase != attempting {
		return ErrClosed
	}
	return l.cause
}

// reach delivers a state.
func (l *link) reach(state State) error {
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	return l.reachAndUnlock(state)
}

func (l *link) reachAndUnlock(state State) error {
	s := l.s
	e := s.machine.Reach(state)
	r := s.deliverLocked(e)
	s.machine.Answer(e, r)
	l.signalQuietLocked()
	return l.release(OK)
}

// signalQuietLocked ends a drain if no message is unacknowledged.
func (l *link) signalQuietLocked() {
	if l.quiet != nil && l.unacked == 0 {
		close(l.quiet)
		l.quiet = nil
	}
}

func (l *link) Connected() error {
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	l.stopTimerLocked()
	l.unacked = 0 // over HTTP the peer has answered
	l.s.err = nil
	l.since = time.Now()
	return l.reachAndUnlock(StateConnected)
}

func (l *link) State(state State) error { return l.reach(state) }

// verdict returns the state that reports whether the peer accepted a message.
func verdict(good bool) State {
	if good {
		return StateQoSAckRemote
	}
	return StateQoSNackRemote
}

func (l *link) Ack(good bool) error {
	if good {
		l.s.mu.Lock()
		if l.phase == attempting {
			l.s.stopTimeoutLocked()
		}
		l.s.mu.Unlock()
	}
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	l.unacked = max(l.unacked-1, 0)
	return l.reachAndUnlock(verdict(good))
}

func (l *link) Done(good bool) error {
	if err := l.acquire(notPayload); err != nil {
		return err // such as a timeout: the program is not notified, so Done has no effect
	}
	l.done = true
	return l.reachAndUnlock(verdict(good))
}

func (l *link) Call(f func() Result) error {
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	r := OK
	l.s.callUnlocked(func() { r = f() })
	return l.release(r)
}

func (l *link) Rx(buf []byte, flags Flags) error {
	if err := l.acquire(len(buf)); err != nil {
		return err
	}
	_, err := l.rxAndUnlock(buf, flags, false)
	return err
}

func (l *link) RxReply(buf []byte, flags Flags) (wantsTx bool, err error) {
	if err := l.acquire(len(buf)); err != nil {
		return false, err
	}
	return l.rxAndUnlock(buf, flags, true)
}

func (l *link) TryRx(buf []byte, flags Flags) (delivered bool, err error) {
	if ok, err := l.acquireWhile(len(buf), false); !ok {
		return false, err
	}
	_, err = l.rxAndUnlock(buf, flags, false)
	return true, err
}

func (l *link) Resumed() <-chan struct{} {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.resumed == nil {
		l.spent = true
		l.resumed = make(chan struct{}, 1)
	}
	return l.resumed
}

// rxAndUnlock delivers payload. The caller has the turn and mu; rxAndUnlock
// releases both.
func (l *link) rxAndUnlock(buf []byte, flags Flags, silent bool) (wantsTx bool, err error) {
	s := l.s
	l.delivered += int64(len(buf))
	l.silent = silent
	h := s.h.Rx
	s.mu.Unlock()
	returned := false
	defer s.endUnless(&returned)
	if f := l.e.hooks.Rx; f != nil {
		f(s.context(), s, len(buf))
	}
	r := OK
	if h != nil {
		r = h(s, buf, flags)
	}
	returned = true
	s.mu.Lock()
	if l.loan != nil {
		l.loan.waits = false
	}
	l.silent, wantsTx = false, s.wantsTx
	return wantsTx, l.release(r)
}

func (l *link) RxEnd() error {
	if err := l.acquire(notPayload); err != nil {
		return err
	}
	s := l.s
	r := OK
	if h := s.h.Rx; h != nil {
		s.callUnlocked(func() { r = h(s, nil, FlagEOM) })
		if r != DestroyMe && s.role == nil {
			r = OK
		}
	}
	return l.release(r)
}

func (l *link) RxClosed() error {
	s := l.s
	s.mu.Lock()
	f := s.h.RxClosed
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	if err := l.acquire(0); err != nil {
		return err
	}
	s.callUnlocked(func() { f(s) })
	if err := l.release(OK); err != nil {
		return err
	}
	if err := l.acquire(0); err != nil { // waits for ResumeRx
		return err
	}
	return l.release(OK)
}

func (l *link) Outgoing() (length uint64, ok bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.txLen, l.s.h.Tx != nil
}

func (l *link) Tx(buf []byte) (p transport.Piece, err error) {
	if err := l.acquire(notPayload); err != nil {
		return p, err
	}
	s := l.s
	l.spent = true // transports send from goroutines that may outlive Run
	l.clearTxLocked()
	h, ordinal := s.h.Tx, s.ordinal
	var length uint64 // of a message that may begin now
	if h != nil {
		s.ordinal++
		if l.t.carrier.HasMessages() {
			length, s.txLen = s.txLen, 0
		}
	}
	s.mu.Unlock()
	returned := false
	defer s.endUnless(&returned)
	r := TxDontSend
	if h != nil {
		p.N, p.Flags, r = h(s, ordinal, buf)
		if p.N < 0 || p.N > len(buf) {
			s.e.log.Error("sspolicy: the Tx callback returned a length that does not fit the buffer",
				"streamtype", s.t.stream.Name, "n", p.N, "len", len(buf))
			r = DisconnectMe
		}
	}
	if r != OK {
		p.N, p.Flags = 0, 0
	}
	if f := s.e.hooks.Tx; f != nil && p.N > 0 {
		f(s.context(), s, p.N)
	}
	returned = true
	s.mu.Lock()
	if l.t.carrier.Acknowledges() {
		if l.message == nil {
			l.message = new(message)
		}
		l.message.end(&p, length)
	}
	if p.Empty() {
		if s.txLen == 0 {
			s.txLen = length // no message has begun
		}
	} else {
		p.Length = length
	}
	if !s.machine.Connected() && l.phase == attempting {
		if p.Empty() {
			l.stopTimerLocked() // the peer waits for the program
		} else {
			l.startTimerLocked()
		}
	}
	if p.Flags&FlagEOM != 0 && int(l.ride) < len(s.chainLocked())-1 {
		p.Flags &^= FlagEOM
		p.Next = true
		l.ride++
		s.wantTxLocked()
		l.signalTxLocked()
	}
	if p.Flags&FlagEOM != 0 && (l.t.carrier.Acknowledges() || l.t.stream.IsHTTP() && !s.machine.Connected()) {
		l.unacked++
	}
	if r == TxDontSend {
		r = OK
	}
	return p, l.release(r)
}

func (l *link) WantsTx() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.wantsTx && l.phase == attempting
}

func (l *link) Ready() <-chan struct{} {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.ready == nil {
		l.spent = true
		l.ready = make(chan struct{}, 1)
		if l.s.wantsTx {
			l.ready <- struct{}{}
		}
	}
	return l.ready
}

func (l *link) Notify(f func()) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.spent, l.notify = true, f
	if l.s.wantsTx {
		f()
	}
}

// signalTxLocked signals that the program wants to send. The caller holds the
// stream's mu.
func (l *link) signalTxLocked() {
	if l.silent {
		return
	}
	if l.notify != nil {
		l.notify()
	}
	if l.ready != nil {
		select {
		case l.ready <- struct{}{}:
		default:
		}
	}
}

// clearTxLocked withdraws the signal that the program wants to send.
func (l *link) clearTxLocked() {
	l.s.wantsTx = false
	select {
	case <-l.ready: // never ready if it is nil
	default:
	}
}

func (l *link) FailTx(err error) {
	if l.acquire(notPayload) != nil {
		return
	}
	if f := l.s.h.TxFailed; f != nil {
		l.s.callUnlocked(func() { f(l.s, err) })
	}
	l.unacked = 0
	l.signalQuietLocked()
	_ = l.release(OK)
}

var _ transport.Link = (*link)(nil)
