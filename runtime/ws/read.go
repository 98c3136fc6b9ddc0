package ws

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// read delivers what the peer sends, until it closes or the connection fails.
func (c *conn) read() error {
	for {
		_, r, err := c.ws.Reader(context.Background())
		if err == nil {
			err = c.readMessage(r)
		}
		if c.rxErr != nil {
			return c.rxErr
		}
		if err != nil {
			return err
		}
		if c.ask {
			c.ask = false
			if replaced := c.answer(); replaced {
				return <-c.taken
			}
		}
	}
}

// answer sends what was asked for when a message had been delivered, without
// another goroutine having to wake up. It reports whether one reads now in the
// place of this one, because sending took long: it could take for ever, with a
// peer that does not read as long as it can not send.
func (c *conn) answer() (replaced bool) {
	if c.gate != nil || c.replaced || !c.sends.TryLock() {
		c.sendMore()
		return false
	}
	turn := c.turns.Add(1)
	if c.stall == nil {
		c.taken = make(chan error, 1)
		c.stall = time.AfterFunc(math.MaxInt64, c.look)
	}
	if c.looking.CompareAndSwap(false, true) {
		c.stall.Reset(stallWait)
	}
	var err error
	if c.l.WantsTx() {
		err = c.step()
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

// look looks whether one and the same answer is being sent since it has looked
// before, and then reads. It looks again as long as there are answers: to start
// and stop a timer for each would cost more than many of them.
func (c *conn) look() {
	select {
	case <-c.done:
		return
	default:
	}
	turn := c.turns.Load()
	switch {
	case turn != c.looked: // there is something new
	case turn%2 == 0:
		c.looking.Store(false)
		if c.turns.Load() == turn || !c.looking.CompareAndSwap(false, true) {
			return
		}
	case c.turns.CompareAndSwap(turn, turn+1):
		c.replaced = true
		c.taken <- c.read()
		return
	}
	c.looked = turn
	c.stall.Reset(stallWait)
}

// readMessage delivers one message. A piece is delivered when more follow, or
// have to be waited for: then it is readWire that delivers it. So the end of a
// message is told with its last piece, without any piece being held back.
func (c *conn) readMessage(r io.Reader) error {
	buf := rxBuffers.Get().(*[2][bufferSize]byte)
	defer rxBuffers.Put(buf)
	c.flags = policy.FlagSOM
	for i := 0; ; i ^= 1 {
		n, err := r.Read(buf[i][:])
		if n > 0 {
			c.deliver(0)
			c.piece = buf[i][:n]
		}
		switch {
		case errors.Is(err, io.EOF) && c.rxErr == nil:
			return c.deliverEnd()
		case err != nil:
			c.deliver(0)
			return err
		case c.rxErr != nil:
			c.piece = nil
			return c.rxErr
		}
	}
}

// deliver hands over the piece that waits, if one does.
func (c *conn) deliver(end policy.Flags) {
	p := c.piece
	if p == nil || c.rxErr != nil {
		return
	}
	c.piece = nil
	c.rx(p, c.flags|end)
	c.flags = 0
}

// deliverEnd hands over the end of a message, with the piece that waits if one
// does.
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
		c.ask, c.rxErr = c.l.RxReply(p, flags)
	} else {
		c.rxErr = c.l.Rx(p, flags)
	}
	c.inRx.Store(false)
	if c.unheard.CompareAndSwap(true, false) {
		c.watch()
	}
}

// readWire reads from the network, for the library.
func (c *conn) readWire(p []byte) (int, error) {
	if !c.closing.Load() { // else it may be another goroutine that reads
		// An error of it, the end of the link, is seen when the library has what
		// it wants: that way the close frame of the peer is found behind it.
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

// mayPong reports whether a PING can be answered. It waits for a frame that is
// being sent: as long as the peer reads nothing it would not read a PONG either.
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
