package ws

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/coder/websocket"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// lateRead is how long the reason is looked for, in what the peer has sent,
// when sending has failed.
const lateRead = time.Second

// write sends what the program has to send, until the end of the connection.
func (c *conn) write() {
	defer c.others.Done()
	ready := c.l.Ready()
	for {
		select {
		case <-ready:
		case <-c.more:
		case <-c.done:
			return
		}
		var err error
		c.sends.Lock()
		for err == nil && !c.closing.Load() && (c.m.more || c.l.WantsTx()) {
			err = c.step()
		}
		c.sends.Unlock()
		if err != nil {
			c.sendFailed(err)
			return
		}
	}
}

// sendMore lets the goroutine of write send what there is.
func (c *conn) sendMore() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// A message is what is being sent.
type message struct {
	open   bool           // has begun
	more   bool           // and the program is to be asked for more at once
	w      io.WriteCloser // nil before the first byte
	behind bool           // the library may hold some of it
}

// step asks the program for a piece of a message, and sends it. The caller
// holds sends.
func (c *conn) step() error {
	buf := txBuffers.Get().(*[bufferSize]byte)
	defer txBuffers.Put(buf)
	m := &c.m
	c.gate.wait()
	piece, err := c.l.Tx(buf[:])
	n, som, eom := piece.N, piece.Flags&policy.FlagSOM != 0, piece.Flags&policy.FlagEOM != 0
	switch {
	case err != nil:
		return err // the link has ended: close is called
	case n == 0 && !som && !eom: // there is nothing for now
		m.more = false
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
	if n > smallPiece {
		c.wire.hold()
		err = c.put(buf[:n], eom)
		if e := c.wire.release(); err == nil {
			err = e
		}
	} else {
		err = c.put(buf[:n], eom)
	}
	<-c.sending
	if err != nil {
		return c.writeFailed(err)
	}
	return nil
}

// smallPiece is what the library sends with one write.
const smallPiece = 4000

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

// sendFailed ends a connection, if it has not ended, for what step returned.
func (c *conn) sendFailed(err error) {
	if err == errNoSOM || err == errSOM {
		c.fail(err)
		c.closeWith(websocket.StatusInternalError)
	}
}

// writeFailed ends a connection on which sending has failed. If the peer has
// said why, reading finds it.
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
