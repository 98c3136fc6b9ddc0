package ws

import (
	"compress/flate"
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// read delivers messages until the peer closes or the connection fails.
func (c *conn) read() error {
	for {
		kind, r, err := c.ws.Reader(context.Background())
		if err == nil {
			err = c.readMessage(kind, r)
		}
		if c.rxErr != nil {
			return c.rxErr
		}
		if err != nil {
			return err
		}
		if c.wantsTx {
			c.wantsTx = false
			if replaced := c.reply(); replaced {
				return <-c.readErr
			}
		}
	}
}

// reply sends one piece on the reading goroutine, which is faster than waking the
// writing one. A write may block, even until something is read, if the peer does
// not read while it writes; so checkStall lets another goroutine read after a
// while. reply reports whether that has happened.
func (c *conn) reply() (replaced bool) {
	if c.gate != nil || c.replaced || !c.sends.TryLock() {
		c.sendMore()
		return false
	}
	turn := c.turns.Add(1)
	if c.stall == nil {
		c.readErr = make(chan error, 1)
		c.stall = time.AfterFunc(math.MaxInt64, c.checkStall)
	}
	if c.checking.CompareAndSwap(false, true) {
		c.stall.Reset(stallWait)
	}
	var err error
	if c.l.WantsTx() {
		err = c.stepLocked()
	}
	more := c.m.more || c.l.WantsTx()
	c.sends.Unlock()
	replaced = !c.turns.CompareAndSwap(turn, turn+1)
	switch {
	case err != nil:
		c.sendFailed(err)
	case more:
		c.sendMore()
	}
	return replaced
}

// checkStall becomes the reading goroutine if the same reply is running as at the
// latest check. It repeats itself while there are replies, since a timer for each
// would cost more than most replies.
func (c *conn) checkStall() {
	select {
	case <-c.done:
		return
	default:
	}
	turn := c.turns.Load()
	switch {
	case turn != c.checked: // another reply, or the end of one
	case turn%2 == 0:
		c.checking.Store(false)
		if c.turns.Load() == turn || !c.checking.CompareAndSwap(false, true) {
			return
		}
	case c.turns.CompareAndSwap(turn, turn+1):
		c.replaced = true
		c.readErr <- c.read()
		return
	}
	c.checked = turn
	c.stall.Reset(stallWait)
}

// readMessage delivers one message. A piece is delivered when the next one has been
// read, or by readWire before it waits for the network. So the last piece carries
// FlagEOM, and no piece is delayed.
func (c *conn) readMessage(kind websocket.MessageType, r io.Reader) error {
	check := kind == websocket.MessageText && !c.wire.check.text
	var text utf8Check
	buf := rxBuffers.Get().(*[2][bufferSize]byte)
	defer rxBuffers.Put(buf)
	c.flags = policy.FlagSOM
	for i := 0; ; i ^= 1 {
		n, err := r.Read(buf[i][:])
		if check && (text.add(buf[i][:n]) < n || errors.Is(err, io.EOF) && !text.complete()) {
			return errUTF8
		}
		if n > 0 {
			c.deliver(0)
			c.piece = buf[i][:n]
		}
		switch _, corrupt := errors.AsType[flate.CorruptInputError](err); {
		case errors.Is(err, io.EOF) && c.rxErr == nil:
			return c.deliverEnd()
		case corrupt:
			c.deliver(0)
			return errDeflate
		case err != nil:
			c.deliver(0)
			return err
		case c.rxErr != nil:
			c.piece = nil
			return c.rxErr
		}
	}
}

// deliver delivers the pending piece, if any.
func (c *conn) deliver(end policy.Flags) {
	p := c.piece
	if p == nil || c.rxErr != nil {
		return
	}
	c.piece = nil
	c.rx(p, c.flags|end)
	c.flags = 0
}

// deliverEnd delivers the end of a message, with the pending piece if any.
func (c *conn) deliverEnd() error {
	if c.piece == nil {
		c.rx(nil, c.flags|policy.FlagEOM)
	}
	c.deliver(policy.FlagEOM)
	return c.rxErr
}

func (c *conn) rx(p []byte, flags policy.Flags) {
	c.inRx.Store(true)
	if flags&policy.FlagEOM != 0 {
		c.wantsTx, c.rxErr = c.l.RxReply(p, flags)
	} else {
		c.rxErr = c.l.Rx(p, flags)
	}
	c.inRx.Store(false)
	if c.expired.CompareAndSwap(true, false) {
		c.watch()
	}
}

// readWire reads from the network for the library.
func (c *conn) readWire(p []byte) (int, error) {
	if !c.closing.Load() { // otherwise another goroutine may be reading
		// rxErr is examined after the library has read its frame, so that it
		// finds a close frame of the peer.
		c.deliver(0)
	}
	c.gate.quiet(true)
	n, err := c.wire.Conn.Read(p)
	c.gate.quiet(false)
	if n > 0 {
		c.validity.Load().Confirm()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errGone
	}
	return n, err
}

// mayPong reports whether a PING is to be answered. It waits for a frame that is
// being written: a peer that does not read would not read the PONG.
func (c *conn) mayPong() bool {
	select {
	case c.sending <- struct{}{}:
		<-c.sending
		return true
	default:
	}
	late := time.NewTimer(pongWait)
	defer late.Stop()
	select {
	case c.sending <- struct{}{}:
		<-c.sending
		return true
	case <-late.C:
		return false
	}
}
