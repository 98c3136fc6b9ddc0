package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// An exchange is a stream whose handlers are those of Fetch or Open: it makes
// calls that wait out of callbacks.
type exchange struct {
	ctx     context.Context
	s       *Stream
	call    call
	collect bool           // the answer is collected as a whole, for Fetch
	stops   [2]func() bool // of what waits for a context to end

	// mu is taken inside of callbacks, which hold no other lock then, and is
	// held while methods of s are called.
	mu   sync.Mutex
	cond sync.Cond // something below has changed

	over      bool
	err       error // of what is over; nil if all went well
	dropped   bool  // over, and what has been received is not wanted any more
	connected bool  // has been, at some time
	verdict   State // StateQoSAckRemote, StateQoSNackRemote, or 0
	user      State // of the policy's http_resp_map
	status    int   // of the answer

	// What has been received. Fetch collects it. Open has place for one piece:
	// the transport waits until there is place, and that slows the peer down.
	buf     []byte
	full    bool            // there is a piece
	off     int             // how much of it has been taken
	told    []metadataValue // what the peer said along with its message; empty if nothing
	known   []metadataValue // along with the message that has been taken last
	waiting int             // how many bytes wait for place
	flags   Flags
	related bool  // a group of messages is being received
	ends    []int // where each of its messages ends in buf, for Fetch

	// What is to be sent.
	writing  sync.Mutex // held by a write, outside of mu
	out      []byte
	pending  bool // out is to be sent, though it may be empty
	tail     tail
	begun    bool          // a part of a message has been sent
	asked    bool          // the transport has asked for payload in this attempt
	closed   bool          // closeWrite has been called: true of later attempts too
	used     bool          // a part of the body has been had
	restarts int           // how often it is to be had from the start again
	chain    []*StreamType // whose messages make the request, in this attempt
	at       int           // index of the one whose message is being sent
	parts    []payload     // to be read by pump; nil if there is none
	broken   error         // why nothing more can be sent in this attempt
}

// tail says how the message that is being sent ends.
type tail uint8

const (
	tailOpen tail = iota // not with what is pending
	tailLast             // with what is pending
	tailSent             // it has ended
)

// start makes the stream of a Fetch or Open, and begins an attempt.
func (c *Context) start(ctx context.Context, streamtype string, o []CallOption, collect bool) (*exchange, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	x := &exchange{ctx: ctx, collect: collect}
	x.call.limit = DefaultLimit
	for _, o := range o {
		o.apply(&x.call)
	}
	x.cond.L = &x.mu
	s, err := c.newStream(streamtype, Handlers{State: x.state, Rx: x.rx}, x.prepare)
	if err != nil {
		return nil, err
	}
	if collect {
		s.StartTimeout(0)
	}
	_ = s.RequestTx() // if it has ended already, x knows why
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return x, nil
	}
	x.stops[0] = context.AfterFunc(ctx, func() { x.abort(contextError(ctx)) })
	if !collect { // whose Rx may be waiting
		x.stops[1] = context.AfterFunc(c.life, func() { x.abort(ErrClosed) })
	}
	if x.parts != nil {
		go x.pump()
	}
	return x, nil
}

// prepare fills in a stream before it begins its life.
func (x *exchange) prepare(s *Stream) (err error) {
	x.s, s.x = s, x
	x.chain = s.t.chain
	if x.parts, err = x.call.readers(x.chain); err != nil {
		return err
	}
	switch sends := s.t.policy.sends(); {
	case s.t.of == nil:
		return fmt.Errorf("%w: it is for NewStream", ErrUnsupported)
	case x.call.hasBody() && !sends:
		return ErrNoBody
	case x.sendsBody() || !x.collect && sends:
		s.h.Tx = x.tx
		s.txLen = x.txLength()
	}
	for _, o := range x.call.options {
		if err := o.fill(s); err != nil {
			return err
		}
	}
	return nil
}

// contextError returns why ctx, which is done, is done.
func contextError(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}

// finish says how it all ended, if that is not known yet. mu is held.
func (x *exchange) finish(err error) {
	if x.over {
		return
	}
	x.over, x.err = true, err
	for _, stop := range x.stops {
		if stop != nil {
			stop()
		}
	}
	x.cond.Broadcast()
}

// abort ends the stream from outside of it.
func (x *exchange) abort(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fail(err)
}

// replaced is abort for a policy that has changed; but what has ended well has.
func (x *exchange) replaced() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		x.fail(ErrPolicyChanged)
	}
}

// fail is abort where mu is held.
func (x *exchange) fail(err error) {
	x.finish(err)
	if x.full && !x.collect {
		x.err = err // though all went well, it is not all to be had any more
	}
	x.dropped = true
	x.s.Destroy()
}

// messages reports whether a connection carries any number of messages, so
// that it makes sense to go on with another one.
func (x *exchange) messages() bool {
	st := x.s.StreamType()
	return st.LocalSink || st.Protocol == ProtocolWS || st.Protocol == ProtocolMQTT
}

// apiece reports whether each write is a message of its own.
func (x *exchange) apiece() bool { return x.messages() && x.parts == nil }

// sendsBody reports whether a body is sent that was given at the start. Fetch
// publishes a message over mqtt, if an empty one.
func (x *exchange) sendsBody() bool {
	return x.call.hasBody() || x.collect && x.s.t.policy.Protocol == ProtocolMQTT && x.parts == nil
}

// oneMessage reports whether the answer is the first message that comes.
func (x *exchange) oneMessage() bool {
	return x.collect && x.s.t.policy.Protocol == ProtocolWS
}

func (x *exchange) state(s *Stream, state State, _ uint32) Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return DestroyMe
	}
	switch state {
	case StateConnecting:
		return x.connecting()
	case StateConnected:
		x.connected, x.status = true, s.Status()
		if x.messages() && (x.pending || x.call.hasBody()) {
			_ = s.RequestTx() // what was asked for before has gone with the connection before
		}
		x.cond.Broadcast()
	case StateQoSAckRemote, StateQoSNackRemote:
		x.verdict = state
		if x.collect && !s.t.http { // over HTTP the connection ends by itself
			x.finish(x.result(nil))
			return DestroyMe
		}
	case StateDisconnected:
		err := s.Err()
		if x.messages() && !x.collect && err != nil && !s.t.policy.Opportunistic {
			x.lost()
			return OK // the policy makes another connection
		}
		x.finish(x.result(err))
		return DestroyMe
	case StateAllRetriesFailed:
		err := ErrAllRetriesFailed
		if cause := s.Err(); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		x.finish(err)
		return DestroyMe
	case StateTimeout:
		x.finish(fmt.Errorf("%w: the policy's timeout_ms is over", ErrTimeout))
		return DestroyMe
	case StateDestroying:
		err := ErrClosed
		if s.Err() == ErrPolicyChanged {
			err = ErrPolicyChanged
		}
		x.finish(err)
	default:
		if state >= StateUserBase {
			x.user = state
		}
	}
	return OK
}

// result returns how the end of a connection is to be taken, that it ended for
// the reason err. mu is held.
func (x *exchange) result(err error) error {
	switch {
	case x.verdict == StateQoSNackRemote && (x.s.t.http || x.collect):
		return &NackError{Status: x.status, State: x.user}
	case x.verdict == StateQoSAckRemote && (x.s.t.http || x.collect), err == nil:
		return nil
	case err == ErrPolicyChanged:
		return err
	case !x.s.t.http && errors.Is(err, io.EOF) && !x.oneMessage():
		return nil // the peer is done
	case errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
}

// connecting makes all ready for an attempt. mu is held.
func (x *exchange) connecting() Result {
	x.user, x.verdict, x.status = 0, 0, 0
	x.asked, x.broken = false, nil
	was := x.chain
	x.chain = x.s.t.chain
	if x.parts != nil && !slices.EqualFunc(was, x.chain, func(a, b *StreamType) bool { return a.Name == b.Name }) {
		x.finish(fmt.Errorf("%w: rideshare: by a new policy other streamtypes share the request than there are parts for", ErrUnsupported))
		return DestroyMe
	}
	if x.messages() && !x.collect && (!x.call.hasBody() || x.tail == tailSent) {
		return OK
	}
	if x.collect {
		x.buf, x.related, x.ends = x.buf[:0], false, nil
	}
	if x.used {
		if x.spent() {
			x.finish(fmt.Errorf("%w: %w", ErrBodySpent, x.s.Err()))
			return DestroyMe
		}
		x.used = false
		x.restarts++
	}
	if x.messages() {
		_ = x.s.RequestTxLen(x.txLength()) // the attempt before may have taken it
	}
	x.begun, x.tail, x.at = false, tailOpen, 0
	if x.parts != nil {
		x.out, x.pending = nil, false
	} else if x.sendsBody() {
		x.out, x.pending, x.tail = x.call.body, true, tailLast
	} else if x.closed {
		x.tail = tailLast
	}
	x.cond.Broadcast()
	return OK
}

// spent reports whether what has been had of the body can not be had again.
func (x *exchange) spent() bool {
	for _, p := range x.parts {
		if _, seeker := p.reader.(io.Seeker); p.used && !seeker {
			return true
		}
	}
	return !x.call.hasBody()
}

// lost is the end of a connection that is followed by another one. mu is held.
func (x *exchange) lost() {
	if x.begun { // the rest of a message makes none
		x.begun = false
		x.restarts++
		x.cond.Broadcast()
	}
}

// room waits until a piece that the peer has sent can be taken, or is not wanted
// any more. It is called before the turn is taken, so that a program that does
// not read can still write.
func (x *exchange) room(n int, flags Flags) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.waiting = n
	for !x.collect && x.full && !x.over && flags&FlagPerfJSON == 0 && (n > 0 || flags != FlagEOM) {
		x.cond.Wait()
	}
	x.waiting = 0
}

func (x *exchange) rx(_ *Stream, buf []byte, flags Flags) Result {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case flags&FlagPerfJSON != 0:
		return OK
	case x.over:
		return DestroyMe
	case x.collect:
		if limit := x.call.limit; limit >= 0 && len(buf) > limit-len(x.buf) {
			x.finish(fmt.Errorf("the answer is %w: %d bytes", ErrTooLong, limit))
			return DestroyMe
		}
		x.buf = append(x.buf, buf...)
		if flags&FlagEOM != 0 && x.oneMessage() {
			x.finish(nil)
			return DestroyMe
		}
		x.related = x.related || flags&FlagRelatedStart != 0
		if x.related && flags&FlagEOM != 0 {
			if len(x.ends) == maxParts {
				x.finish(fmt.Errorf("the answer is %w: %d parts", ErrTooLong, maxParts))
				return DestroyMe
			}
			x.ends = append(x.ends, len(x.buf))
		}
		return OK
	case x.full && len(buf) == 0 && flags == FlagEOM:
		x.flags |= flags // of the piece that is there
		return OK
	}
	x.buf, x.off, x.flags, x.full = append(x.buf[:0], buf...), 0, flags, true
	if flags&FlagSOM != 0 && x.messages() {
		x.told = x.s.received(x.told)
	}
	x.cond.Broadcast()
	return OK
}

func (x *exchange) tx(s *Stream, _ uint32, buf []byte) (int, Flags, Result) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.asked {
		x.asked = true
		x.cond.Broadcast()
	}
	if x.over {
		return 0, 0, DestroyMe
	}
	if !x.pending && x.tail != tailLast {
		return 0, 0, TxDontSend
	}
	n := copy(buf, x.out)
	x.out = x.out[n:]
	x.used = x.used || n > 0
	var flags Flags
	if !x.begun {
		x.begun = true
		flags |= FlagSOM
	}
	if len(x.out) > 0 {
		_ = s.RequestTx()
		return n, flags, OK
	}
	x.out, x.pending = nil, false
	if x.tail == tailLast {
		x.tail = tailSent
		if x.at++; x.at < len(x.chain) {
			x.begun, x.used, x.tail = false, true, tailOpen
			if x.parts == nil && (x.closed || x.call.hasBody()) {
				x.tail = tailLast // the rest of the messages are empty
			}
		}
		flags |= FlagEOM
	} else if x.apiece() {
		x.begun = false
		flags |= FlagEOM
	}
	x.cond.Broadcast()
	return n, flags, OK
}

// write sends p, and returns when the transport has taken it. mu is held.
func (x *exchange) write(p []byte) (n int, err error) {
	restarts := x.restarts
	if x.over {
		return 0, x.writeError()
	}
	x.out, x.pending = p, true
	if x.apiece() {
		_ = x.s.RequestTxLen(uint64(len(p)))
	} else {
		_ = x.s.RequestTx()
	}
	for x.pending && !x.over && x.restarts == restarts && x.broken == nil {
		x.cond.Wait()
	}
	if !x.pending {
		return len(p), nil
	}
	n = len(p) - len(x.out)
	x.out, x.pending = nil, false
	if !x.over {
		return n, cmp.Or(x.broken, x.s.Err()) // the connection was lost
	}
	return n, x.writeError()
}

// writeError returns why nothing more can be sent. mu is held.
func (x *exchange) writeError() error {
	if x.err == nil {
		return io.ErrClosedPipe
	}
	return x.err
}

// pump sends what the reader has to give.
func (x *exchange) pump() {
	for i := range x.parts {
		p := &x.parts[i]
		if seeker, ok := p.reader.(io.Seeker); ok {
			var err error
			if p.start, err = seeker.Seek(0, io.SeekCurrent); err != nil { // a pipe, say
				x.mu.Lock()
				p.reader = struct{ io.Reader }{p.reader}
				x.mu.Unlock()
			}
		}
	}
	buf := make([]byte, 16<<10)
	x.mu.Lock()
	defer x.mu.Unlock()
	for pass := x.restarts; ; pass = x.restarts {
		if pass > 0 {
			x.mu.Unlock()
			err := x.rewind()
			x.mu.Lock()
			if err != nil {
				x.fail(fmt.Errorf("%w: %w", ErrBodySpent, err))
			}
		}
		for i := range x.parts {
			x.pass(&x.parts[i], buf, pass)
		}
		if x.over {
			return
		}
	}
}

// rewind makes all that has been read from ready to be read again.
func (x *exchange) rewind() error {
	for i := range x.parts {
		if p := &x.parts[i]; p.used {
			if _, err := p.reader.(io.Seeker).Seek(p.start, io.SeekStart); err != nil {
				return err
			}
		}
	}
	return nil
}

// pass sends a message once. It returns when the next one is to be sent, all of
// them once more, or all is over. mu is held, but not while it reads.
func (x *exchange) pass(p *payload, buf []byte, pass int) {
	done := func() bool { return x.over || x.restarts != pass }
	r := p.reader
	if p.length >= 0 {
		r = io.LimitReader(r, p.length)
	}
	for total := int64(0); ; {
		for !x.asked && !done() { // so that nothing is read in vain
			x.cond.Wait()
		}
		if done() {
			return
		}
		x.mu.Unlock()
		n, err := r.Read(buf)
		x.mu.Lock()
		total += int64(n)
		if n > 0 {
			x.used, p.used = true, true
		}
		if done() {
			return
		}
		if n > 0 {
			if _, werr := x.write(buf[:n]); werr != nil {
				for !done() {
					x.cond.Wait()
				}
				return
			}
		}
		switch {
		case done():
			return
		case err == io.EOF && total < p.length:
			x.fail(fmt.Errorf("the body: %w after %d of %d bytes", io.ErrUnexpectedEOF, total, p.length))
			return
		case err == io.EOF:
			at := x.at
			x.closeWrite()
			for !done() && (x.at == at || at == len(x.parts)-1) {
				x.cond.Wait()
			}
			return
		case err != nil:
			x.fail(fmt.Errorf("the body: %w", err))
			return
		}
	}
}

// closeWrite ends the message that is being sent. mu is held.
func (x *exchange) closeWrite() {
	if x.tail == tailOpen && !x.apiece() {
		x.closed = true
		x.tail = tailLast
		_ = x.s.RequestTx()
	}
}
