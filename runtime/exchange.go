package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An exchange turns the callbacks of a stream into blocking calls, for Fetch and
// Open. It uses only the exported methods of Context and Stream.
type exchange struct {
	ctx     context.Context
	call    call
	collect bool // for Fetch: collect the whole response

	// mu is locked in callbacks, which hold no other lock, and while methods of s
	// are called.
	mu   sync.Mutex
	cond sync.Cond // signals a change of a field below

	s    *Stream            // set at CREATING
	st   *policy.StreamType // of the current attempt
	stop func() bool        // ends the wait for ctx

	over      bool
	err       error // why it is over; nil if all went well
	dropped   bool  // over, and unread payload is discarded
	connected bool  // has been connected at some time
	answered  bool  // payload or a verdict has arrived
	lost      error // of the previous connection; nil after the program has seen it
	stale     bool  // the piece in the inbox is from the previous connection
	reads     bool  // the program has called Read or Messages
	undecided bool  // the program has not called Read, Messages or Write since the loss
	held      bool  // an attempt waits for that decision
	verdict   State // StateQoSAckRemote, StateQoSNackRemote, or 0
	user      State // of the policy's http_resp_map
	status    int   // of the response

	linger *time.Timer // see lingerLocked; nil if it has not been called

	in  inbox
	out outbox
}

// An inbox holds received payload. Fetch collects all of it. Open has room for one
// piece: the stream is paused until it has been read.
type inbox struct {
	to       []byte // buffer of a waiting Read; nil if there is none
	n        int    // bytes copied there
	buf      []byte
	full     bool // buf holds a piece
	closed   bool // the peer sends no more, and waits for written data
	off      int  // bytes of buf that have been read
	flags    Flags
	arrived  []string // metadata that came with the message of the piece
	lastRead []string // metadata of the message read last
	related  bool     // in a group of messages
	ends     []int    // for Fetch: end of each message of the group in buf
}

// An outbox holds payload to send.
type outbox struct {
	writing   sync.Mutex // held by a write, acquired before mu
	buf       []byte
	pending   bool // send buf, even if it is empty
	tail      tail
	started   bool                 // part of a message has been sent
	requested bool                 // the transport has requested payload in this attempt
	closed    bool                 // closeWrite was called; also holds for later attempts
	used      bool                 // part of the body has been taken
	restarts  int                  // number of times the body must be taken from its start again
	chain     []*policy.StreamType // whose messages make up the request, in this attempt
	at        int                  // index in chain of the current message
	parts     []payload            // for pump to read; nil if there is none
	broken    error                // why no more can be sent in this attempt
	receipts
}

// A tail says where the current message ends.
type tail uint8

const (
	tailOpen tail = iota // after more than the pending data
	tailLast             // with the pending data
	tailSent             // it has ended
)

// createLocked checks at CREATING that the stream supports the call.
func (x *exchange) createLocked(s *Stream) (err error) {
	x.s, x.st, x.out.chain = s, s.StreamType(), s.Rideshares()
	x.addPartsLocked()
	if x.out.parts, err = x.call.readers(x.out.chain); err != nil {
		return err
	}
	return x.checkLocked(s)
}

// checkLocked checks that the streamtype supports the call, and prepares what it
// sends. It is called again when a proxy has described the streamtype.
func (x *exchange) checkLocked(s *Stream) error {
	x.out.counts = x.st.Carrier().Acknowledges()
	switch sends := x.st.Sends(); {
	case x.st.Server && s.Listener() == nil:
		return fmt.Errorf("%w: the streamtype is a server", ErrUnsupported)
	case x.st.Carrier() == policy.ProtocolSMD:
		return fmt.Errorf("%w: use NewStream for this streamtype", ErrUnsupported)
	case x.call.hasBody() && !sends:
		return ErrNoBody
	case x.sendsBody() || !x.collect && sends:
		s.SetHandlers(Handlers{Tx: x.tx, TxFailed: x.txFailed})
		return s.RequestTxLen(x.txLength())
	}
	return nil
}

// txLength returns the length of the body for RequestTxLen, or 0 if it is unknown.
func (x *exchange) txLength() (n uint64) {
	if x.out.parts == nil {
		return uint64(len(x.call.body))
	}
	for i := range x.out.parts { // by index: pump writes other fields of each
		if x.out.parts[i].length < 0 {
			return 0
		}
		n += uint64(x.out.parts[i].length)
	}
	return n
}

// finishLocked records the result, unless there is one already.
func (x *exchange) finishLocked(err error) {
	if x.over {
		return
	}
	x.over, x.err = true, err
	if o := &x.out; !o.counts && o.settled < o.passed && !x.st.IsHTTP() && (errors.Is(err, ErrClosed) || errors.Is(err, ErrPolicyChanged)) {
		o.miss(1, err) // the transport may have been interrupted while sending
	}
	x.out.lose(err)
	if x.stop != nil {
		x.stop()
	}
	if x.linger != nil {
		x.linger.Stop()
	}
	x.cond.Broadcast()
}

// abort ends the stream from outside.
func (x *exchange) abort(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.abortLocked(err)
}

func (x *exchange) abortLocked(err error) {
	x.finishLocked(err)
	if x.in.full && !x.collect {
		x.err = err // the exchange succeeded, but the rest can no longer be read
	}
	x.dropped = true
	x.s.Destroy()
}

// messages reports whether a connection carries any number of messages, so that
// another one can continue where it ended.
func (x *exchange) messages() bool { return x.st.Carrier().HasMessages() }

// separate reports whether each write is a message of its own.
func (x *exchange) separate() bool { return x.messages() && x.out.parts == nil }

// sendsBody reports whether the call provided a body. Fetch publishes a message
// over mqtt even if it is empty.
func (x *exchange) sendsBody() bool {
	return x.call.hasBody() || x.collect && x.st.Protocol == policy.ProtocolMQTT && x.out.parts == nil
}

// oneMessage reports whether the response is the first message that arrives.
func (x *exchange) oneMessage() bool { return x.collect && x.st.Protocol == policy.ProtocolWS }

// hasVerdict reports whether ACK and NACK decide about the whole exchange.
func (x *exchange) hasVerdict() bool { return x.st.IsHTTP() || x.collect || x.unknown() }

func (x *exchange) state(s *Stream, state State, _ uint32) Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return DestroyMe
	}
	switch state {
	case StateCreating:
		if err := x.createLocked(s); err != nil {
			return x.endLocked(err)
		}
	case StatePoll:
		if x.held = x.undecided; x.held {
			return DisconnectMe
		}
	case StateConnecting:
		return x.connectingLocked()
	case StateConnected:
		x.connected, x.status = true, s.Status()
		if x.messages() && (x.out.pending || x.call.hasBody()) {
			_ = s.RequestTx() // the previous request ended with its connection
		}
		x.cond.Broadcast()
	case StateQoSAckRemote, StateQoSNackRemote:
		x.verdict, x.answered = state, true
		x.status = cmp.Or(s.Status(), x.status) // a proxy may report it after CONNECTED
		if x.out.counts {
			x.out.acknowledge(state == StateQoSAckRemote)
			x.cond.Broadcast()
		}
		if x.collect && x.unknown() {
			return x.lingerLocked(verdictLinger)
		}
		if x.collect && !x.st.IsHTTP() { // over HTTP the connection ends by itself
			return x.endLocked(x.resultLocked(nil))
		}
	case StateDisconnected:
		err := s.Err()
		if err == ErrClosed || err == ErrPolicyChanged { // destroyed from outside
			x.dropped = true
			return x.endLocked(err)
		}
		if x.messages() && !x.collect && err != nil && !x.st.Opportunistic && !x.unknown() {
			x.lostLocked(err, s.Retries())
			return OK
		}
		return x.endLocked(x.resultLocked(err))
	case StateAllRetriesFailed:
		err := ErrAllRetriesFailed
		if cause := s.Err(); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return x.endLocked(err)
	case StateTimeout:
		return x.endLocked(fmt.Errorf("%w: the policy's timeout_ms has passed", ErrTimeout))
	case StateDestroying:
		err := ErrClosed
		if s.Err() == ErrPolicyChanged {
			err = ErrPolicyChanged
		}
		x.finishLocked(err)
		x.dropped = true
	default:
		if state >= StateUserBase {
			x.user = state
		}
	}
	return OK
}

// endLocked ends the exchange and returns the result for the callback.
func (x *exchange) endLocked(err error) Result {
	x.finishLocked(err)
	return DestroyMe
}

// resultLocked returns the error of the exchange for a connection that ended with
// err.
func (x *exchange) resultLocked(err error) error {
	switch {
	case x.verdict == StateQoSNackRemote && x.hasVerdict():
		return &NackError{Status: x.status, State: x.user}
	case x.verdict == StateQoSAckRemote && x.hasVerdict(), err == nil:
		return nil
	case x.unknown() && x.collect && !x.answered: // over HTTP the connection has been lost
	case !x.st.IsHTTP() && errors.Is(err, io.EOF) && !x.oneMessage():
		return nil // the peer has finished
	case errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
}

// connectingLocked prepares an attempt.
func (x *exchange) connectingLocked() Result {
	o := &x.out
	guessed := x.unknown()
	x.st = x.s.StreamType()
	if guessed && !x.unknown() {
		if err := x.checkLocked(x.s); err != nil {
			return x.endLocked(err)
		}
	}
	x.user, x.verdict, x.status = 0, 0, 0
	o.requested, o.broken = false, nil
	last := o.chain
	if o.chain = x.s.Rideshares(); x.s.Proxied() && len(o.chain) == 1 {
		o.chain = last
	}
	if o.parts != nil && !slices.EqualFunc(last, o.chain, func(a, b *policy.StreamType) bool { return a.Name == b.Name }) {
		return x.endLocked(fmt.Errorf("%w: rideshare: the new policy changes the streamtypes that share the request", ErrUnsupported))
	}
	if x.messages() && !x.collect && (!x.call.hasBody() || o.tail == tailSent) {
		return OK
	}
	if x.collect {
		x.in.buf, x.in.related, x.in.ends = x.in.buf[:0], false, nil
	}
	if o.used {
		if x.spent() {
			return x.endLocked(fmt.Errorf("%w: %w", ErrBodySpent, x.s.Err()))
		}
		o.used = false
		o.restarts++
	}
	if x.messages() {
		_ = x.s.RequestTxLen(x.txLength()) // the previous attempt may have consumed it
	}
	o.started, o.tail, o.at = false, tailOpen, 0
	if o.parts != nil {
		o.buf, o.pending = nil, false
	} else if x.sendsBody() {
		o.buf, o.pending, o.tail = x.call.body, true, tailLast
	} else if o.closed {
		o.tail = tailLast
	}
	x.cond.Broadcast()
	return OK
}

// spent reports whether part of the body has been consumed and cannot be read
// again.
func (x *exchange) spent() bool {
	for _, p := range x.out.parts {
		if _, seeker := p.reader.(io.Seeker); p.read && !seeker {
			return true
		}
	}
	return !x.call.hasBody()
}

// lostLocked handles the end of a connection. If another one may follow, the
// program gets a ReconnectError and decides; otherwise it gets ErrAllRetriesFailed.
func (x *exchange) lostLocked(err error, retry bool) {
	x.out.lose(err)
	if retry {
		x.lost, x.stale = err, x.in.full
		x.undecided = x.reads && !x.out.pending // a waiting Write is a decision
	}
	x.cond.Broadcast()
	if x.out.started { // the rest alone would not be a message
		x.out.started = false
		x.out.restarts++
	}
}

// decideLocked allows the policy to make another connection.
func (x *exchange) decideLocked() {
	x.undecided = false
	if x.held {
		x.held = false
		_ = x.s.RequestTx()
	}
}

func (x *exchange) rx(s *Stream, buf []byte, flags Flags) Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	in := &x.in
	switch {
	case flags&FlagPerfJSON != 0:
		return OK
	case x.over:
		return DestroyMe
	case x.linger != nil: // all has been received
		return OK
	case x.collect:
		return x.collectLocked(buf, flags)
	case in.full && len(buf) == 0 && flags == FlagEOM:
		in.flags |= flags // of the piece in the inbox
		return OK
	}
	if in.to != nil && len(buf) <= len(in.to) && len(buf) > 0 && len(x.st.Metadata) == 0 {
		in.n = copy(in.to, buf) // a Read waits, and gets all of it
		in.to = nil
		x.cond.Broadcast()
		return OK
	}
	x.answered = true
	in.buf, in.off, in.flags, in.full = append(in.buf[:0], buf...), 0, flags, true
	if flags&FlagSOM != 0 && x.messages() {
		in.arrived = in.arrived[:0]
		for _, m := range x.st.Metadata {
			value, _ := s.Metadata(m.Name)
			in.arrived = append(in.arrived, value)
		}
	}
	s.PauseRx()
	x.cond.Broadcast()
	return OK
}

// collectLocked appends a piece to the response to a Fetch.
func (x *exchange) collectLocked(buf []byte, flags Flags) Result {
	in := &x.in
	if limit := x.call.limit; limit >= 0 && len(buf) > limit-len(in.buf) {
		return x.endLocked(fmt.Errorf("the response is %w: %d bytes", ErrTooLong, limit))
	}
	in.buf = append(in.buf, buf...)
	x.answered = true
	if flags&FlagEOM != 0 && x.oneMessage() {
		return x.endLocked(nil)
	}
	if flags&FlagEOM != 0 && x.unknown() && !in.related {
		return x.lingerLocked(messageLinger)
	}
	in.related = in.related || flags&FlagRelatedStart != 0
	if in.related && flags&FlagEOM != 0 {
		if len(in.ends) == maxParts {
			return x.endLocked(fmt.Errorf("the response is %w: %d parts", ErrTooLong, maxParts))
		}
		in.ends = append(in.ends, len(in.buf))
	}
	return OK
}

func (x *exchange) tx(s *Stream, _ uint32, buf []byte) (int, Flags, Result) {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := &x.out
	if !o.counts && o.settled < o.passed {
		o.settled = o.passed // a transport asks for more when the last piece has been sent
		x.cond.Broadcast()
	}
	if !o.requested {
		o.requested = true
		x.cond.Broadcast()
	}
	if x.over {
		return 0, 0, DestroyMe
	}
	if !o.pending && o.tail != tailLast {
		return 0, 0, TxDontSend
	}
	n := copy(buf, o.buf)
	o.buf = o.buf[n:]
	o.used = o.used || n > 0
	var flags Flags
	if !o.started {
		o.started = true
		flags |= FlagSOM
	}
	if len(o.buf) > 0 {
		if !o.counts {
			o.passed++
		}
		_ = s.RequestTx()
		return n, flags, OK
	}
	o.buf, o.pending = nil, false
	if o.tail == tailLast {
		flags |= x.messageEndLocked()
	} else if x.separate() {
		o.started = false
		flags |= FlagEOM
	}
	if flags&FlagEOM != 0 || n > 0 && !o.counts {
		o.passed++
	}
	x.cond.Broadcast()
	return n, flags, OK
}

// rxClosed keeps a connection whose peer sends no more, until CloseWrite or Close.
func (x *exchange) rxClosed(s *Stream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.in.closed = true
	if x.out.tail != tailSent {
		s.PauseRx()
	}
	x.cond.Broadcast()
}

// messageEndLocked ends the current message and returns its flags.
func (x *exchange) messageEndLocked() Flags {
	o := &x.out
	o.tail = tailSent
	o.at++
	if o.at >= len(o.chain) {
		if x.in.closed {
			x.s.ResumeRx()
		}
		return FlagEOM | FlagEnd
	}
	o.started, o.used, o.tail = false, true, tailOpen
	if o.parts == nil && (o.closed || x.call.hasBody()) {
		o.tail = tailLast // the other messages are empty
	}
	return FlagEOM
}

// txFailed makes writes fail even if the program does not read.
func (x *exchange) txFailed(_ *Stream, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.messages() {
		x.out.lose(err) // the next connection can send again
	} else {
		x.out.broken = err
	}
	x.cond.Broadcast()
}
