package runtime

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"
)

// closeLimit is how long Close and CloseWrite wait for acknowledgements.
const closeLimit = 5 * time.Second

// receipts count the messages that a Conn has sent and that the peer has
// acknowledged.
type receipts struct {
	counts  bool   // the peer acknowledges each message
	passed  uint64 // messages that the transport has accepted; pieces, unless counts
	settled uint64 // of these, the number whose outcome is known
	losses  int    // connections lost
	missed  UnacknowledgedError
	closing bool // Close waits
}

// acknowledge records the outcome of the next message.
func (r *receipts) acknowledge(good bool) {
	r.settled++
	switch {
	case !good:
		r.miss(1, ErrNack)
	case r.missed.Missing == 0:
		r.missed.Acknowledged++
	}
}

// miss counts n missing messages.
func (r *receipts) miss(n int, err error) {
	if r.missed.Missing == 0 {
		r.missed.Err = err
	}
	r.missed.Missing += n
}

// lose records the loss of the connection, and of all messages without an outcome.
func (r *receipts) lose(err error) {
	r.losses++
	if r.counts && r.settled < r.passed {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		r.miss(int(r.passed-r.settled), err)
	}
	r.settled = r.passed
}

// take returns the error about missing messages, if any, and resets the counts.
func (r *receipts) take() error {
	missed := r.missed
	r.missed = UnacknowledgedError{}
	if missed.Missing == 0 {
		return nil
	}
	return &missed
}

// Flush waits until the peer has acknowledged everything that Write has accepted so
// far. The error is an *UnacknowledgedError if a message is missing: the peer
// rejected it, or the connection was lost before the acknowledgement arrived. Each
// missing message is reported once, by Flush, CloseWrite or Close.
//
// Over mqtt the peer acknowledges each message with QoS 1 and 2. Over HTTP, after
// CloseWrite, the headers of the response are the acknowledgement. All other data
// counts as acknowledged when the network stack of the system has accepted it: it
// may be lost after that, and the loss of an earlier connection is not reported. A
// message is also missing if the context is closed or its policy changes before the
// outcome is known.
//
// When ctx is done, the error counts the unacknowledged messages, and the next
// Flush waits for them again.
func (c *Conn) Flush(ctx context.Context) error {
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	if err := c.x.flushLocked(ctx); err != nil {
		return c.wrap("flush", err)
	}
	return nil
}

// flushLocked is Flush without the stream's name in the error.
func (x *exchange) flushLocked(ctx context.Context) error {
	o := &x.out
	until, losses := o.passed, o.losses
	defer context.AfterFunc(ctx, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.cond.Broadcast()
	})()
	if !o.counts && o.settled < until {
		_ = x.s.RequestTx() // Tx is called when the rest has been sent
	}
	for !x.settledLocked(until) && !x.over && o.losses == losses && ctx.Err() == nil {
		x.cond.Wait()
	}
	switch settled := x.settledLocked(until); {
	case o.counts && !settled:
		now := o.receipts
		now.miss(int(until-o.settled), contextError(ctx))
		return now.take()
	case o.counts:
		return o.take()
	case x.over && errors.Is(x.err, ErrNack):
		return x.err
	case x.st.IsHTTP() && x.connected:
		return nil
	case x.over:
		return cmp.Or(o.take(), x.err)
	case o.losses != losses:
		return &UnacknowledgedError{Missing: 1, Err: x.s.Err()}
	case !settled:
		return &UnacknowledgedError{Missing: 1, Err: contextError(ctx)}
	}
	return nil
}

// settledLocked reports whether the outcome of the first n messages or pieces is known.
func (x *exchange) settledLocked(n uint64) bool {
	switch tail := x.out.tail; {
	case x.st.IsHTTP() && tail != tailOpen:
		return x.connected && (x.answered || !x.s.Proxied()) // a proxy reports CONNECTED earlier
	case tail == tailSent && !x.separate():
		return true // Tx will not be called again
	}
	return x.out.settled >= n
}

// closeFlushLocked is flushLocked for Close and CloseWrite.
func (x *exchange) closeFlushLocked() error {
	ctx, cancel := context.WithTimeoutCause(x.ctx, closeLimit, ErrTimeout)
	defer cancel()
	return x.flushLocked(ctx)
}
