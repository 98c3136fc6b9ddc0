package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Conn is a stream in the form of an [io.ReadWriteCloser], made by
// [Context.Open]. Over HTTP it is one request, whose body is written, and one
// response, whose body is read.
//
// One goroutine may read while another writes. Unread payload waits at the peer,
// except for one piece, and over mqtt 64 KiB. Close the Conn or cancel its context,
// unless Read has returned an error.
//
// Over ws, mqtt and to local sinks a Conn outlives its connections, unless the
// policy sets opportunistic. After a connection is lost, Read and Messages return a
// *ReconnectError once, following the data that arrived on it. If the program then
// calls Read, Messages or Write again, the Conn makes the policy's next attempt. A
// program that does not want that calls Close. Without a connection, Write waits;
// it fails if part of its message was sent when the connection was lost. Read and
// Messages fail when the policy has no more retries.
type Conn struct{ x *exchange }

var _ io.ReadWriteCloser = (*Conn)(nil)

// Open makes a stream and connects it, with the retries of the policy. It returns
// when payload can flow: when the peer has answered, or waits for a body that has
// yet to be written; over ws and mqtt, when the connection is ready. If WithBody
// provides the body, nothing else can be written; over ws it is one message.
//
// When ctx is done, even after Open has returned, the Conn is closed and the errors
// of its methods wrap ctx.Err(). Other errors are those of [Context.Fetch].
func (c *Context) Open(ctx context.Context, streamtype string, o ...CallOption) (*Conn, error) {
	x, err := c.start(ctx, streamtype, o, false)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: open %q: %w", streamtype, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for !x.over && !x.connected && (!x.out.requested || x.call.hasBody()) {
		x.cond.Wait()
	}
	if x.over && (!x.connected || x.dropped) {
		return nil, fmt.Errorf("sspolicy: open %q: %w", streamtype, x.err)
	}
	return &Conn{x}, nil
}

// Read reads from the peer. It returns io.EOF at the end if everything has arrived
// and the peer has accepted. Otherwise the error is a *NackError,
// io.ErrUnexpectedEOF with the cause if the rest was lost, or the error of the
// context.
//
// After a *ReconnectError the next Read returns data from another connection.
func (c *Conn) Read(p []byte) (int, error) {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for {
		x.in.to, x.in.n = p, 0
		err := x.waitLocked()
		x.in.to = nil
		if n := x.in.n; n > 0 {
			x.in.n = 0
			return n, nil
		} else if err != nil {
			return 0, c.wrap("read", err)
		}
		n := copy(p, x.in.buf[x.in.off:])
		x.takeLocked(n)
		if n > 0 {
			return n, nil
		}
	}
}

// waitLocked waits for a piece. It returns io.EOF if no more will arrive and the
// exchange succeeded.
func (x *exchange) waitLocked() error {
	x.reads = true
	if x.lost == nil {
		x.decideLocked()
	}
	for {
		switch {
		case x.in.n > 0:
			return nil
		case x.out.closing:
			return ErrClosed
		case x.dropped, x.over && !x.in.full:
			return cmp.Or(x.err, io.EOF)
		case x.lost != nil && !x.over && !x.stale:
			err := &ReconnectError{x.lost}
			x.lost = nil
			return err
		case x.in.full:
			return nil
		case x.in.closed:
			return io.EOF
		}
		x.mu.Unlock()
		read := x.s.ServeRx()
		x.mu.Lock()
		if !read && !x.in.full && !x.over && x.lost == nil && x.in.n == 0 && !x.out.closing {
			x.cond.Wait()
		}
	}
}

// takeLocked consumes n bytes of the piece.
func (x *exchange) takeLocked(n int) {
	in := &x.in
	in.lastRead = append(in.lastRead[:0], in.arrived...)
	if in.off += n; in.off == len(in.buf) {
		in.full, x.stale = false, false
		x.s.ResumeRx()
		x.cond.Broadcast()
	}
}

// Buffered returns the number of bytes that have arrived and are unread.
func (c *Conn) Buffered() int {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.s.PendingRx()
	if x.in.full {
		n += len(x.in.buf) - x.in.off
	}
	return n
}

// Messages returns an iterator over the messages that the peer sends, each as a
// whole. Over HTTP the body of the response is the only one.
//
//	for msg, err := range conn.Messages() {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// The iteration ends when the stream ends, with the error that Read would return,
// or with ErrTooLong. It continues only after a *ReconnectError, if the loop does.
// Incomplete messages are dropped. If the loop ends early, another one continues
// with the next message. The messages belong to the caller.
func (c *Conn) Messages() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			msg, err := c.message()
			if err == io.EOF {
				return
			}
			_, again := errors.AsType[*ReconnectError](err)
			if !yield(msg, err) || err != nil && !again {
				return
			}
		}
	}
}

// message returns the next message, or io.EOF.
func (c *Conn) message() (msg []byte, err error) {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		err := x.waitLocked()
		switch {
		case err == io.EOF && len(msg) > 0:
			return msg, nil // raw has no messages; return everything as one
		case err != nil:
			return nil, c.wrap("read", err)
		}
		in := &x.in
		if in.flags&FlagSOM != 0 && in.off == 0 {
			msg = nil
		}
		if limit := x.call.limit; limit >= 0 && len(in.buf)-in.off > limit-len(msg) {
			x.abortLocked(ErrTooLong)
			return nil, c.wrap("read", fmt.Errorf("a message is %w: %d bytes", ErrTooLong, limit))
		}
		msg = append(msg, in.buf[in.off:]...)
		end := in.flags&FlagEOM != 0
		x.takeLocked(len(in.buf) - in.off)
		if end {
			return msg, nil
		}
	}
}

// A ReconnectError is returned by Read and Messages of a Conn when its connection
// was lost and the policy makes another attempt. It wraps the cause, such as the
// close frame of a WebSocket server.
type ReconnectError struct{ Err error }

func (e *ReconnectError) Error() string {
	return "the connection was lost, and the policy makes another one: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *ReconnectError) Unwrap() error { return e.Err }

// Write sends p and returns when the transport has accepted it; see [Conn.Flush].
// Over ws, mqtt and to a local sink, p is a message of its own. Over HTTP it is
// part of the body of the request, which CloseWrite ends. If part of the body has
// been sent and the attempt fails, there is no other attempt and the error is
// ErrBodySpent.
func (c *Conn) Write(p []byte) (int, error) {
	x := c.x
	x.out.writing.Lock()
	defer x.out.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case !x.st.Sends():
		return 0, c.wrap("write", ErrNoBody)
	case x.call.hasBody() || x.out.tail != tailOpen:
		return 0, c.wrap("write", io.ErrClosedPipe)
	case len(p) == 0 && !x.messages():
		return 0, nil
	}
	x.decideLocked()
	n, err := x.writeLocked(p)
	if err != nil {
		return n, c.wrap("write", err)
	}
	return n, nil
}

// NextPart ends the message of one of the streamtypes that share the request
// (rideshare); later writes belong to the message of the next one. It returns when
// the transport has accepted the end. Messages that have not begun by CloseWrite
// are empty.
func (c *Conn) NextPart() error {
	x := c.x
	o := &x.out
	o.writing.Lock()
	defer o.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	at, restarts := o.at, o.restarts
	switch {
	case x.over:
		return c.wrap("write", x.writeErrorLocked())
	case at >= len(o.chain)-1, x.call.hasBody(), o.tail != tailOpen:
		return c.wrap("write", io.ErrClosedPipe)
	}
	o.tail = tailLast
	_ = x.s.RequestTx()
	for o.at == at && !x.over && o.restarts == restarts {
		x.cond.Wait()
	}
	switch {
	case o.at > at:
		return nil
	case x.over:
		return c.wrap("write", x.writeErrorLocked())
	}
	return c.wrap("write", x.s.Err()) // the connection was lost
}

// CloseWrite ends writing. Over HTTP that ends the body of the request; most
// servers do not answer before. Over ws and mqtt it waits like Flush, for up to 5
// seconds, and later calls of Write fail. It does nothing if Open was given the
// body.
func (c *Conn) CloseWrite() error {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.call.hasBody(): // ends by itself
		return nil
	case !x.separate():
		x.closeWriteLocked()
		return nil
	}
	x.out.tail = tailSent
	if err := x.closeFlushLocked(); err != nil {
		return c.wrap("close", err)
	}
	return nil
}

// Close ends the stream and its connection. It first waits like Flush, for up to 5
// seconds or until the context of Open is done; over HTTP only if the whole request
// has been sent. Blocked calls of Read and Write fail with ErrClosed.
//
// The error is nil, or an *UnacknowledgedError if messages are missing. A second
// Close returns nil.
func (c *Conn) Close() error {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	switch {
	case x.over:
		err = x.out.take()
	case !x.st.IsHTTP() || x.out.tail != tailOpen:
		x.out.closing = true
		x.cond.Broadcast()
		err = x.closeFlushLocked()
	}
	x.abortLocked(ErrClosed)
	_ = x.out.take() // this call reports it
	if missing, ok := errors.AsType[*UnacknowledgedError](err); ok {
		return c.wrap("close", missing)
	}
	return nil
}

// Metadata returns the value of the metadata item of that name: the one that the
// peer sent, after it has answered, else the one that was set. Over mqtt it belongs
// to the message read last. The error is nil or ErrUnknownMetadata.
func (c *Conn) Metadata(name string) (string, error) {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if i := policy.ItemIndex(x.st.Metadata, name); i >= 0 && i < len(x.in.lastRead) {
		return x.in.lastRead[i], nil
	}
	return x.s.Metadata(name)
}

// TransportData returns the transport's data of the stream; see
// [Stream.TransportData].
func (c *Conn) TransportData(newData func() any) any { return c.x.s.TransportData(newData) }

// wrap adds the operation and the stream to err, except to io.EOF.
func (c *Conn) wrap(operation string, err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("sspolicy: %s %q: %w", operation, c.x.st.Name, err)
}
