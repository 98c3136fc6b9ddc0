package ws

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime"
)

// lateRead is how long the reason is looked for, in what the peer has sent,
// when sending has failed.
const lateRead = time.Second

// write sends what the program has to send, until the end of the connection.
func (c *conn) write() {
	defer c.others.Done()
	ready := c.l.TxReady()
	var m message
	for {
		select {
		case <-ready:
		case <-c.done:
			return
		}
		switch err := c.send(&m); err {
		case nil:
		case errNoSOM, errSOM:
			c.fail(err)
			c.closeWith(websocket.StatusInternalError)
			return
		default:
			return
		}
	}
}

// A message is what is being sent.
type message struct {
	open   bool           // has begun
	w      io.WriteCloser // nil before the first byte
	behind bool           // the library may hold some of it
}

// send sends what the program has: a message, or as much of one as there is.
// An error is the end of the connection.
func (c *conn) send(m *message) error {
	buf := txBuffers.Get().(*[bufferSize]byte)
	defer txBuffers.Put(buf)
	for {
		c.gate.wait()
		n, flags, err := c.l.Tx(buf[:])
		som, eom := flags&runtime.FlagSOM != 0, flags&runtime.FlagEOM != 0
		switch {
		case err != nil:
			return err // the link has ended: close has been called
		case n == 0 && !som && !eom: // there is nothing for now
			if m.behind {
				m.behind = false
				c.flush()
			}
			return nil
		case !m.open && !som:
			return errNoSOM
		case m.open && som:
			return errSOM
		}
		c.sending <- struct{}{}
		err = c.put(m, buf[:n], eom)
		<-c.sending
		if err != nil {
			return c.writeFailed(err)
		}
		if eom {
			return nil
		}
	}
}

// put sends a piece of a message.
func (c *conn) put(m *message, p []byte, eom bool) error {
	if eom && m.w == nil {
		*m = message{}
		return c.ws.Write(context.Background(), c.n.kind, p)
	}
	m.open = true
	if m.w == nil && len(p) > 0 {
		w, err := c.ws.Writer(context.Background(), c.n.kind)
		if err != nil {
			return err
		}
		m.w = w
	}
	if len(p) > 0 {
		m.behind = true
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

// writeFailed ends a connection on which sending has failed. If the peer has
// said why, reading finds it.
func (c *conn) writeFailed(err error) error {
	err = fmt.Errorf("sspolicy: ws: %w", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeErr = err
	if !c.closing.Load() {
		_ = c.wire.Conn.SetReadDeadline(time.Now().Add(lateRead))
	}
	return err
}

// flush sends what the library holds of a message that goes on later: the
// library sends a frame at its leisure unless it ends a message. What sends it
// is a PING, which may stand between fragments (RFC 6455 section 5.4).
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.flushing {
		c.again = true
		return
	}
	c.flushing = true
	c.others.Add(1) // by a goroutine that is one of them
	go func() {
		defer c.others.Done()
		for {
			c.ping()
			c.mu.Lock()
			if !c.again {
				c.flushing = false
				c.mu.Unlock()
				return
			}
			c.again = false
			c.mu.Unlock()
		}
	}()
}
