package sspcmux

import (
	"net"
	"sync"
	"time"
)

// A Channel is a channel of a session. Its methods are safe for concurrent use.
//
// It is one end of a pipe. Goroutines copy between the other end and the line.
type Channel struct {
	net.Conn // the program's end of the pipe
	s        *Session
	n        byte
	inner    net.Conn      // the other end of the pipe
	opened   chan struct{} // closed when the peer has accepted or refused the channel; err says which
	changed  *sync.Cond    // signals changes of the fields below; its lock is mu of the session
	room     chan struct{} // signals that the program has read

	// Guarded by mu of the session.
	err        error  // why nothing more is sent to the peer; nil while the channel works
	isOpen     bool   // opened is closed
	requested  bool   // the peer's request is not answered yet
	closing    bool   // CHANNEL_CLOSE has been queued
	deaf       bool   // the peer has not acknowledged CHANNEL_CLOSE in time
	received   []byte // payload not yet written by deliver
	held       int    // payload bytes not yet read by the program
	windowed   bool   // the peer supports flow control
	credit     int    // bytes that the peer accepts
	unreported int    // bytes that the program has read, not yet reported to the peer
}

func newChannel(s *Session, n byte) *Channel {
	outer, inner := net.Pipe()
	c := &Channel{
		Conn: outer, s: s, n: n, inner: inner,
		opened: make(chan struct{}), changed: sync.NewCond(&s.mu), room: make(chan struct{}, 1),
	}
	go c.send()
	go c.deliver()
	return c
}

// NetConn returns the connection that is the line, or nil.
func (c *Channel) NetConn() net.Conn {
	conn, _ := c.s.rw.(net.Conn)
	return conn
}

// RemoteAddr returns the address of the line.
func (c *Channel) RemoteAddr() net.Addr { return c.s.o.Addr }

// LocalAddr returns the address of the line.
func (c *Channel) LocalAddr() net.Addr { return c.s.o.Addr }

// Read reads payload. The first Read or Write accepts a channel that the peer
// requests.
func (c *Channel) Read(b []byte) (int, error) {
	c.accept()
	return c.Conn.Read(b)
}

// Write writes payload, and returns when the session has accepted it.
func (c *Channel) Write(b []byte) (int, error) {
	c.accept()
	return c.Conn.Write(b)
}

// Ended reports whether the peer or the line has ended the channel.
func (c *Channel) Ended() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.err != nil
}

// accept answers the request of the peer.
func (c *Channel) accept() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if !c.requested {
		return
	}
	c.s.queueLocked(cmdAck, c.n)
	c.openLocked()
}

// openLocked records that both ends have opened the channel.
func (c *Channel) openLocked() {
	c.requested = false
	if !c.isOpen {
		c.isOpen = true
		close(c.opened)
	}
}

// failure returns why the channel was not opened or has ended.
func (c *Channel) failure() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.err
}

// endLocked ends a channel that has lost its number.
func (c *Channel) endLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	if c.requested { // Accept may never be called
		c.Conn.Close()
	}
	c.openLocked()
	c.changed.Broadcast()
	c.signalRoom()
	c.s.endUnusedLocked()
}

// signalRoom wakes receive.
func (c *Channel) signalRoom() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// Close ends the channel after the data written so far.
func (c *Channel) Close() error {
	err := c.Conn.Close()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch {
	case c.requested:
		c.s.channels[c.n] = nil
		c.s.queueLocked(cmdNack, c.n)
		c.endLocked(net.ErrClosed)
	case c.err == nil:
		c.openLocked() // send notices the end
		time.AfterFunc(c.s.closeTimeLocked(), c.finish)
	}
	return err
}

// finish notifies the peer that no more data follows.
func (c *Channel) finish() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.finishLocked(net.ErrClosed)
}

func (c *Channel) finishLocked(err error) {
	if c.err != nil {
		return
	}
	c.endLocked(err)
	c.closing = true
	c.s.queueLocked(cmdClose, c.n)
	time.AfterFunc(c.s.closeTimeLocked(), c.giveUp)
}

// giveUp handles a peer that does not acknowledge the end of the channel. The channel keeps
// its number. A client without other channels resets the line, which makes a proxy of lws
// free its channels. A server does not, since the reset would end the other streams of a
// client of lws.
func (c *Channel) giveUp() {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[c.n] != c {
		return
	}
	c.deaf = true
	for _, other := range s.channels {
		if other != nil && !other.deaf {
			return
		}
	}
	if !s.o.Server {
		s.downLocked(errDeaf)
	}
}

// send copies data from the program to the line.
func (c *Channel) send() {
	defer c.finish()
	defer c.inner.Close()
	<-c.opened
	buf := make([]byte, maxPayload)
	for {
		n, err := c.inner.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			m := c.awaitCredit(len(b))
			if m == 0 || c.s.write(c, b[:m]) != nil {
				return
			}
			b = b[m:]
		}
		if err != nil {
			return
		}
	}
}

// awaitCredit waits for credit, and returns how many of n bytes the peer accepts, or 0 if
// the channel has ended.
func (c *Channel) awaitCredit(n int) int {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for c.err == nil && c.windowed && c.credit == 0 {
		c.changed.Wait()
	}
	switch {
	case c.err != nil:
		return 0
	case c.windowed:
		n = min(n, c.credit)
		c.credit -= n
	}
	return n
}

// deliver copies data from the peer to the program.
func (c *Channel) deliver() {
	defer c.inner.Close()
	var b []byte
	for {
		if b = c.take(b); len(b) == 0 {
			return
		}
		if _, err := c.inner.Write(b); err != nil {
			return
		}
		c.s.mu.Lock()
		c.held -= len(b)
		if c.unreported += len(b); c.windowed && c.err == nil && c.unreported >= window/2 {
			c.s.queueLocked(windowCommand(c.n, c.unreported)...)
			c.unreported = 0
		}
		c.s.mu.Unlock()
		c.signalRoom()
	}
}

// take returns the received data, or nil after the end. It reuses spare for further data.
func (c *Channel) take(spare []byte) []byte {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for c.err == nil && len(c.received) == 0 {
		c.changed.Wait()
	}
	b := c.received
	c.received = nil
	if cap(spare) <= 2*maxPayload {
		c.received = spare[:0]
	}
	return b
}

// receive handles payload.
func (s *Session) receive(n byte, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[n]
	switch {
	case !s.up || c != nil && c.err != nil:
		return
	case c == nil:
		s.queueLocked(cmdNack, n)
		return
	case !c.windowed:
		c.awaitRoomLocked(len(b))
	}
	if c.held+len(b) > window {
		c.finishLocked(errOverflow)
		return
	}
	if c.err == nil {
		c.held += len(b)
		c.received = append(c.received, b...)
		c.changed.Broadcast()
	}
}

// awaitRoomLocked waits until there is room for n bytes from a peer without flow control,
// for at most roomTimeout. It blocks all channels of the line.
func (c *Channel) awaitRoomLocked(n int) {
	if c.held+n <= window {
		return
	}
	timeout := time.NewTimer(roomTimeout)
	defer timeout.Stop()
	for waiting := true; waiting && c.err == nil && c.held+n > window; {
		c.s.mu.Unlock()
		select {
		case <-c.room:
		case <-timeout.C:
			waiting = false
		}
		c.s.mu.Lock()
	}
}
