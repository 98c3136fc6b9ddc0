package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A Conn is a stream as an [io.ReadWriteCloser]: made by Open. Over HTTP it is
// one request, whose body is written, and one answer, whose body is read.
//
// Reading and writing may be done by one goroutine each. What has been received
// and not read is kept waiting at the peer, but for one piece of it. A Conn has
// to be closed, or its context to be done, unless Read has returned an error.
type Conn struct{ x *exchange }

var _ io.ReadWriteCloser = (*Conn)(nil)

// Open makes a stream and connects it, trying again as the policy says. It
// returns when payload can flow: when the peer has answered, or when it waits
// for a body that is still to be written. A body given by WithBody is sent, and
// nothing can be written; over ws it is one message.
//
// When ctx is done, also later, the Conn is closed, and its methods return
// ctx.Err(). Other errors are those of Fetch.
func (c *Context) Open(ctx context.Context, streamtype string, o ...CallOption) (*Conn, error) {
	x, err := c.start(ctx, streamtype, o, false)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: open %q: %w", streamtype, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for !x.over && !x.connected && (!x.asked || x.call.hasBody()) {
		x.cond.Wait()
	}
	if x.over && (!x.connected || x.dropped) {
		return nil, fmt.Errorf("sspolicy: open %q: %w", streamtype, x.err)
	}
	return &Conn{x}, nil
}

// Read reads what the peer sends. The end is io.EOF if all has come and the
// peer has accepted. Else it is a *NackError, io.ErrUnexpectedEOF and the cause
// if the rest was lost, or the error of the context.
//
// The streams of ws, mqtt and local sinks go on with a new connection if the
// policy wants one: Read does not tell, and Messages is what they are for.
func (c *Conn) Read(p []byte) (int, error) {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for x.wait() {
		n := copy(p, x.buf[x.off:])
		x.take(n)
		if n > 0 {
			return n, nil
		}
	}
	if x.err == nil {
		return 0, io.EOF
	}
	return 0, c.wrap("read", x.err)
}

// wait waits for a piece. It reports false if none is to come. mu is held.
func (x *exchange) wait() bool {
	for !x.full && !x.over {
		x.cond.Wait()
	}
	return x.full && !x.dropped
}

// take takes n bytes of the piece. mu is held.
func (x *exchange) take(n int) {
	x.known = append(x.known[:0], x.told...)
	if x.off += n; x.off == len(x.buf) {
		x.full = false
		x.cond.Broadcast()
	}
}

// Write sends p, and returns when the transport has taken it. Over ws, mqtt and
// to a local sink p is a message of its own. Over HTTP it is a part of the body of the request,
// which CloseWrite ends. If the policy wants another attempt when a part of the
// body has been sent, there is none, and the error is ErrBodySpent.
func (c *Conn) Write(p []byte) (int, error) {
	x := c.x
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case !x.s.StreamType().sends():
		return 0, c.wrap("write", ErrNoBody)
	case x.call.hasBody() || x.tail != tailOpen:
		return 0, c.wrap("write", io.ErrClosedPipe)
	case len(p) == 0 && !x.messages():
		return 0, nil
	}
	n, err := x.write(p)
	if err != nil {
		return n, c.wrap("write", err)
	}
	return n, nil
}

// NextPart says that the message of one of the streamtypes that share the
// request (rideshare) has been written, and that what follows is that of the
// next one. It returns when the transport knows. After CloseWrite those that
// are left are empty.
func (c *Conn) NextPart() error {
	x := c.x
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	at, restarts := x.at, x.restarts
	switch {
	case x.over:
		return c.wrap("write", x.writeError())
	case at >= len(x.chain)-1, x.call.hasBody(), x.tail != tailOpen:
		return c.wrap("write", io.ErrClosedPipe)
	}
	x.tail = tailLast
	_ = x.s.RequestTx()
	for x.at == at && !x.over && x.restarts == restarts {
		x.cond.Wait()
	}
	switch {
	case x.at > at:
		return nil
	case x.over:
		return c.wrap("write", x.writeError())
	}
	return c.wrap("write", x.s.Err()) // the connection was lost
}

// CloseWrite says that all has been written. Over HTTP that ends the body of
// the request, and most servers do not answer before. Over ws and mqtt, and
// if the body was given to Open, it does nothing.
func (c *Conn) CloseWrite() error {
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	if !c.x.call.hasBody() { // which ends by itself
		c.x.closeWrite()
	}
	return nil
}

// Close ends the stream, and the connection if it has one. A Read or Write that
// is waiting returns ErrClosed. It returns nil, and may be called twice.
func (c *Conn) Close() error {
	c.x.abort(ErrClosed)
	return nil
}

// Metadata returns the value of the metadata item of that name: what the peer
// has sent, once it has answered, else what was set. Over mqtt what the peer has
// sent is what came with the message that has been read last. The error is nil
// or ErrUnknownMetadata.
func (c *Conn) Metadata(name string) (string, error) {
	x := c.x
	x.mu.Lock()
	defer x.mu.Unlock()
	if i := itemIndex(x.s.StreamType().Metadata, name); i >= 0 && i < len(x.known) && x.known[i].set {
		return x.known[i].text, nil
	}
	return x.s.Metadata(name)
}

// wrap says what failed, unless that is that all was done.
func (c *Conn) wrap(what string, err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("sspolicy: %s %q: %w", what, c.x.s.StreamType().Name, err)
}
