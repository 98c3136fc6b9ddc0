package mqtt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

const readBuffer = 32 << 10

// settings are the fields of a CONNECT except the client id and the password.
// Streams that share a connection have equal settings.
type settings struct {
	username  string
	keepAlive uint16 // in seconds
	clean     bool
	will      will
}

type will struct {
	topic, message string
	qos            byte
	retain         bool
}

// A conn is a connection that streams share.
type conn struct {
	hub   *hub
	set   settings
	users int // streams that have or await it; guarded by the mu of the transport

	ready      chan struct{} // closed when the attempt to connect has ended
	connectErr error         // why it failed; set before ready is closed
	cancelled  bool          // it failed only because its stream ended; set before ready is closed

	nc    net.Conn
	br    *bufio.Reader
	w     *writer
	dead  chan struct{} // closed when the connection has ended
	wg    sync.WaitGroup
	setup *transport.Setup // of the stream that made the connection

	mu      sync.Mutex
	err     error // why the connection has ended
	sess    *session
	streams []*stream
	subs    map[string]*subscription // by filter
	births  map[will]bool

	resend      *time.Timer // calls resendDue
	resendArmed bool

	reader   reader
	liveness liveness
	room     sync.Cond     // signals that the queue of a stream may have room
	acks     []*inMsg      // messages to acknowledge, in the order of their arrival
	unasked  int           // packets since the latest answer that answer nothing
	uploader *stream       // the stream in the middle of a message, or nil
	retired  bool          // the last stream has left, and messages stay for the next connection
	kept     bool          // such a message has arrived
	released chan struct{} // closed when no PUBCOMP is pending; nil unless close waits
}

func newConn(h *hub, set settings) *conn {
	c := &conn{
		hub: h, set: set, users: 1, ready: make(chan struct{}), dead: make(chan struct{}),
		subs: map[string]*subscription{}, births: map[will]bool{},
	}
	c.room.L = &c.mu
	return c
}

// connect dials, exchanges CONNECT and CONNACK, and starts the connection.
func (c *conn) connect(ctx context.Context, l transport.Link, id, password string, first *stream) error {
	c.setup = first.n.setup
	nc, err := c.setup.Dial(ctx, l.Target(), alpn)
	if err != nil {
		return err
	}
	transport.Trace(ctx).GotConn(httptrace.GotConnInfo{Conn: nc})
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.nc, c.br = nc, bufio.NewReaderSize(nc, readBuffer)
	present, err := c.handshake(id, password)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.hub.doubtSession()
		transport.CloseLater(nc)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	c.w = newWriter(nc, c.setup.Env.Now, c.fail)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resend = stoppedTimer(c.resendDue)
	c.liveness.keepAlive = c.setup.Env.NewTimer(c.setup.Stream.SwakeValidity, c.keepUp)
	c.liveness.slow = stoppedTimer(c.checkProgress)
	c.resumeLocked(present)
	c.attachLocked(first)
	c.watchLocked()
	if c.set.keepAlive > 0 {
		c.liveness.keepAlive.Reset(c.keepAlive())
	}
	c.wg.Go(func() { c.w.run(c.dead) })
	c.wg.Go(func() { c.fail(closedByServer(c.read())) })
	return nil
}

// stoppedTimer returns a stopped timer that calls f after it is reset.
func stoppedTimer(f func()) *time.Timer {
	t := time.AfterFunc(math.MaxInt64, f)
	t.Stop()
	return t
}

func (c *conn) handshake(id, password string) (present bool, err error) {
	if id == "" {
		id = randomID()
	}
	if _, err := c.nc.Write(appendConnect(nil, id, &c.set, password)); err != nil {
		return false, err
	}
	h, err := readHeader(c.br)
	if err != nil {
		return false, closedByServer(err)
	}
	if h.kind != typeConnack { // [MQTT-3.2.0-1]
		return false, malformed("packet type %d in place of a CONNACK", h.kind)
	}
	b, err := readControl(c.br, h, &c.reader.control)
	if err != nil {
		return false, closedByServer(err)
	}
	if present, err = parseConnack(b); err == nil && present && c.set.clean {
		return false, malformed("a CONNACK with a session after a clean start") // [MQTT-3.2.2-1]
	}
	return present, err
}

// closedByServer explains an io.EOF: a server has no reason to close a connection.
func closedByServer(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// resumeLocked resumes the session if client and server have one, and otherwise
// begins one.
func (c *conn) resumeLocked(present bool) {
	if c.set.clean || !present || c.hub.session == nil {
		c.sess = newSession()
		if c.hub.key.id != "" { // otherwise the hub has several connections
			c.hub.session = nil
			if !c.set.clean {
				if present { // the server may expect identifiers of another process
					c.sess.next = uint16(rand.Uint32())
				}
				c.hub.session = c.sess
				c.hub.hold(c)
			}
		}
		return
	}
	// The previous connection may still be closing, which takes time if the server
	// does not read. It must no longer use the session.
	before, doubt := c.hub.hold(c)
	if before != nil {
		before.fail(transport.ErrClosed)
	}
	c.sess = c.hub.session
	c.sess.resume()
	if doubt { // subscribing once more is harmless
		clear(c.sess.filters)
		c.sess.received.doubt()
	}
	now := time.Now()
	for _, m := range c.sess.pending(func(*outMsg) bool { return true }) {
		c.w.post(m.appendAgain)
		m.complete, m.tries, m.due = true, 0, now.Add(c.hub.t.resendAfter)
	}
	c.armResendLocked()
}

// fail ends the connection.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	close(c.dead)
	c.wg.Go(func() { transport.Close(c.nc) }) // over TLS it may block
	c.resend.Stop()
	c.liveness.stop()
	c.room.Broadcast()
	c.w.stop(err)
	c.hub.drop(c)
}

// close ends the connection of a stream that has been leaving since began: it waits for
// PUBCOMPs and sends DISCONNECT (section 3.14). A server drops a message with QoS 2 that
// lacks its PUBREL, and does not read a PUBREL after the connection has been reset.
func (c *conn) close(began time.Time) {
	c.mu.Lock()
	released := make(chan struct{})
	if c.err == nil { // otherwise another connection may have the session
		c.released = released
		c.checkReleasedLocked()
	}
	c.mu.Unlock()
	late := time.NewTimer(min(flushLimit, time.Until(began.Add(unsubscribeLimit))))
	select {
	case <-released:
	case <-c.dead:
	case <-late.C:
	}
	late.Stop()
	patience := min(flushLimit, time.Until(began.Add(leaveLimit)))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	stop := context.AfterFunc(ctx, func() { c.w.interrupt(ctx) })
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	_ = c.w.last(ctx, appendDisconnect)
	stop()
	cancel()
	c.fail(transport.ErrClosed)
	c.wg.Wait()
}

// checkReleasedLocked ends the wait of close if no PUBCOMP is pending.
func (c *conn) checkReleasedLocked() {
	if c.released == nil {
		return
	}
	for _, m := range c.sess.out {
		if m.released {
			return
		}
	}
	close(c.released)
	c.released = nil
}
