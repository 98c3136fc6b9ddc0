package ws

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// lateRead is how long after a failed write the reader may still find the reason in
// the peer's data.
const lateRead = time.Second

// sendMore starts the writing goroutine, or makes it check again for payload to
// send. It may be called with locks held.
func (c *conn) sendMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = true
	if !c.writing && !c.over {
		c.writing = true
		c.others.Add(1)
		go c.write()
	}
}

// write is the writing goroutine, which exists while there is payload to send.
func (c *conn) write() {
	defer c.others.Done()
	for {
		c.mu.Lock()
		if !c.again || c.over {
			c.writing = false
			c.mu.Unlock()
			return
		}
		c.again = false
		c.mu.Unlock()
		c.serveTx()
	}
}

// serveTx sends what the program requests to send, on a goroutine of the program or
// the writing one.
func (c *conn) serveTx() {
	c.sends.Lock()
	var err error
	for err == nil && !c.closing.Load() && (c.m.more || c.l.WantsTx()) {
		err = c.stepLocked()
	}
	c.sends.Unlock()
	if err != nil {
		c.sendFailed(err)
	}
}

// A message is the state of the message being sent.
type message struct {
	w        io.WriteCloser // nil before the first byte
	open     bool           // has begun
	more     bool           // call Tx again at once
	buffered bool           // the library may buffer part of it
}

// stepLocked calls Tx and sends the piece that it returns. The caller holds sends.
func (c *conn) stepLocked() error {
	buf := txBuffers.Get().(*[bufferSize]byte)
	defer txBuffers.Put(buf)
	m := &c.m
	c.gate.wait()
	piece, err := c.l.Tx(buf[:])
	n, som, eom := piece.N, piece.Flags&policy.FlagSOM != 0, piece.Flags&policy.FlagEOM != 0
	switch {
	case err != nil:
		return err // the link has ended, and close is called
	case n == 0 && !som && !eom: // nothing to send now
		m.more = false
		if m.buffered {
			m.buffered = false
			c.flush()
		}
		return nil
	case !m.open && !som:
		return errNoSOM
	case m.open && som:
		return errSOM
	}
	c.setSending(true)
	if n > c.n.buffered() {
		c.wire.hold()
		err = c.put(buf[:n], eom)
		if e := c.wire.release(); err == nil {
			err = e
		}
	} else {
		err = c.put(buf[:n], eom)
	}
	c.setSending(false)
	if err != nil {
		return c.writeFailed(err)
	}
	return nil
}

// setSending sets whether a frame of a message is being written.
func (c *conn) setSending(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = is
	if !is && c.sent != nil {
		close(c.sent)
		c.sent = nil
	}
}

// The buffer for frames that the library writes at once has 4 KiB at a client. At a server
// it is ours, and small, for servers with many idle clients.
const (
	clientBuffer = 4 << 10
	serverBuffer = 512
	maxHeader    = 14 // of a frame
)

// buffered returns the size of the largest piece that fits into the buffer of the library.
func (n *connector) buffered() int {
	if n.server != nil {
		return serverBuffer - maxHeader
	}
	return clientBuffer - maxHeader
}

// put sends a piece of a message.
func (c *conn) put(p []byte, eom bool) error {
	m := &c.m
	if eom && m.w == nil {
		*m = message{}
		return c.ws.Write(context.Background(), c.n.kind, p)
	}
	m.open, m.more = true, true
	if m.w == nil && len(p) > 0 {
		w, err := c.ws.Writer(context.Background(), c.n.kind)
		if err != nil {
			return err
		}
		m.w = w
	}
	if len(p) > 0 {
		m.buffered = true
		if _, err := m.w.Write(p); err != nil {
			return err
		}
	}
	if !eom {
		return nil
	}
	w := m.w
	*m = message{}
	return w.Close()
}

// sendFailed closes the connection after an error of stepLocked, unless it has
// ended.
func (c *conn) sendFailed(err error) {
	if err == errNoSOM || err == errSOM {
		c.fail(err)
		c.closeWith(websocket.StatusInternalError)
	}
}

// writeFailed ends a connection after a failed write. It gives the reader a short
// time to find a close frame with the reason.
func (c *conn) writeFailed(err error) error {
	err = fmt.Errorf("sspolicy: ws: %w", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr == nil {
		c.writeErr = err
	}
	if !c.closing.Load() {
		_ = c.wire.Conn.SetReadDeadline(time.Now().Add(lateRead))
	}
	return err
}

// flush sends the data of an incomplete message that the library buffers. Only the
// end of a message and control frames flush, so it sends a PING, which is allowed
// between fragments (RFC 6455 section 5.4).
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.flushing {
		c.flushAgain = true
		return
	}
	c.flushing = true
	c.others.Add(1) // not from 0: the caller is one of them
	go func() {
		defer c.others.Done()
		for {
			c.ping()
			c.mu.Lock()
			if !c.flushAgain {
				c.flushing = false
				c.mu.Unlock()
				return
			}
			c.flushAgain = false
			c.mu.Unlock()
		}
	}()
}
