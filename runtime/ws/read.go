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
	lent := func() error {
		_, err := c.readStep(true)
		return err
	}
	for {
		if err := c.l.Lend(lent); err != nil {
			return err
		}
		replaced, err := c.readStep(false)
		if replaced {
			err = <-c.readErr
		}
		if err != nil {
			return err
		}
	}
}

// readStep delivers one piece of a message. Unless lent is set it also replies, and
// reports whether another goroutine has become the reader meanwhile.
func (c *conn) readStep(lent bool) (replaced bool, err error) {
	if c.r == nil {
		kind, r, err := c.ws.Reader(context.Background())
		if err != nil {
			return false, err
		}
		c.r, c.flags, c.text = r, policy.FlagSOM, nil
		if kind == websocket.MessageText && !c.wire.is(seenText) {
			c.text = new(utf8Check)
		}
	}
	if err := c.readPiece(); err != nil {
		return false, err
	}
	c.gate.quiet(lent && !c.wire.is(seenMore)) // the program may not read again soon
	if !c.wantsTx {
		return false, nil
	}
	c.wantsTx = false
	if lent {
		c.sendMore()
		return false, nil
	}
	return c.reply(), nil
}

// readPiece reads and delivers the next piece of a message. If the message ends
// with it, the library knows that without reading from the network.
func (c *conn) readPiece() error {
	buf := rxBuffers.Get().(*[bufferSize]byte)
	defer rxBuffers.Put(buf)
	n, err := c.r.Read(buf[:])
	for m := n; m > 0 && err == nil && c.wire.is(seenEnd); n += m {
		m, err = c.r.Read(buf[n:])
	}
	eom := errors.Is(err, io.EOF)
	if t := c.text; t != nil && (t.add(buf[:n]) < n || eom && !t.complete()) {
		return errUTF8
	}
	flags := c.flags
	if eom {
		c.r = nil
		flags |= policy.FlagEOM
	}
	if n > 0 || eom {
		c.flags = 0
		c.rx(buf[:n], flags)
	}
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	switch {
	case c.rxErr != nil:
		return c.rxErr
	case eom:
		return nil
	case corrupt:
		return errDeflate
	}
	return err
}

// reply sends one piece on the reading goroutine, which is faster than waking the
// writer. A write may block, even until data is read, if the peer does not read
// while it writes; after a while checkStall therefore lets another goroutine read.
// reply reports whether that has happened.
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
// previous check. While there are replies it repeats, since a timer for each would
// cost more than most replies.
func (c *conn) checkStall() {
	if c.ended.Load() {
		return
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

// rx delivers a piece.
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

// mayPong reports whether to answer a PING. It waits for a frame that is being
// written: a peer that does not read would not read the PONG either.
func (c *conn) mayPong() bool {
	c.mu.Lock()
	if !c.sending {
		c.mu.Unlock()
		return true
	}
	if c.sent == nil {
		c.sent = make(chan struct{})
	}
	sent := c.sent
	c.mu.Unlock()
	late := time.NewTimer(pongWait)
	defer late.Stop()
	select {
	case <-sent:
		return true
	case <-late.C:
		return false
	}
}
