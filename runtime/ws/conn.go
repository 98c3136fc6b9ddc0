package ws

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// bufferSize is the most that one Rx gets and one Tx is offered.
	bufferSize = 16 << 10

	// closeWait is how long the peer gets to answer a close frame.
	closeWait = 2 * time.Second

	// stallWait is how long the reading goroutine may be sending, and twice that
	// at most, before another one takes its place.
	stallWait = 10 * time.Millisecond

	// drainWait is how long what the peer still sends is read, after a
	// connection that has failed, so that it gets to see why.
	drainWait = 500 * time.Millisecond
	drainSize = 1 << 20

	// pongWait is how long the answer to a PING waits for a frame that is being
	// sent. It is shorter than what the library waits, which then gives up the
	// connection.
	pongWait = 3 * time.Second

	// pingWait is how long a PONG is waited for. That there is none is for the
	// policy's svalidhup to judge. The library takes 5 s at most to send a PING.
	pingWait = 8 * time.Second
)

// rxBuffers holds two pieces each: one that may have been the last of its
// message, and the one after it.
var (
	rxBuffers = sync.Pool{New: func() any { return new([2][bufferSize]byte) }}
	txBuffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}
)

// A wire is the network connection as the library has it.
type wire struct {
	net.Conn
	first []byte // has been read already
	c     *conn

	wmu  sync.Mutex
	held *[heldSize]byte // nil unless writes are being held
	n    int             // how many bytes
}

// heldSize is room for a piece of a message with its frame, and a few more: the
// library writes 4 KiB at a time.
const heldSize = bufferSize + 4<<10

var heldBuffers = sync.Pool{New: func() any { return new([heldSize]byte) }}

// hold lets what is written wait for release.
func (w *wire) hold() {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	w.held = heldBuffers.Get().(*[heldSize]byte)
}

// release writes what has been held.
func (w *wire) release() error {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	err := w.writeHeld()
	heldBuffers.Put(w.held)
	w.held = nil
	return err
}

func (w *wire) writeHeld() error {
	if w.n == 0 {
		return nil
	}
	_, err := w.Conn.Write(w.held[:w.n])
	w.n = 0
	return err
}

// Write writes to the connection.
func (w *wire) Write(p []byte) (int, error) {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if w.held == nil {
		return w.Conn.Write(p)
	}
	if len(p) > len(w.held)-w.n {
		if err := w.writeHeld(); err != nil {
			return 0, err
		}
		if len(p) > len(w.held) {
			return w.Conn.Write(p)
		}
	}
	w.n += copy(w.held[w.n:], p)
	return len(p), nil
}

// Read reads from the connection.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.first) > 0 {
		n := copy(p, w.first)
		if w.first = w.first[n:]; len(w.first) == 0 {
			w.first = nil
		}
		return n, nil
	}
	if w.c == nil {
		return 0, io.EOF // the library has refused the response, and looks for more of it
	}
	return w.c.readWire(p)
}

// A conn is one connection. The goroutine of the stream reads, another one
// writes.
type conn struct {
	n    *connector
	l    transport.Link
	ws   *websocket.Conn
	wire *wire
	gate *gate // nil without ws_prioritize_reads

	done    chan struct{}  // closed when nothing is to be read any more
	others  sync.WaitGroup // the goroutines beside that of the stream
	closing atomic.Bool    // the close frame is sent, or about to be
	sending chan struct{}  // holds a value while a frame of a message is written

	m     message       // that is being sent; guarded by sends
	more  chan struct{} // gets a value when the writing goroutine is to look after m
	sends sync.Mutex    // held while the program is asked and the answer sent

	mu       sync.Mutex
	over     bool  // Run is about to return
	err      error // why the connection is given up on this side
	writeErr error // of the first write that failed
	flushing bool  // a PING that flushes is under way
	again    bool  // another one has been asked for

	// Of the reading goroutine.
	piece []byte // has been received, but not delivered; nil if there is none
	flags policy.Flags
	rxErr error // the link has ended
	ask   bool  // to send what the program wants to

	replaced bool          // another goroutine reads than that of the stream
	turns    atomic.Uint64 // of the reading goroutine to send; odd while it does
	stall    *time.Timer   // calls look; nil until the first turn
	looking  atomic.Bool   // it has been started
	looked   uint64        // turns as look has found it
	taken    chan error    // gets what read returned to another goroutine

	validity atomic.Pointer[transport.Validity]
	inRx     atomic.Bool // the program is being told: the peer need not be heard of
	unheard  atomic.Bool // svalidhup has passed in the meantime
}

// Run makes one connection and carries it until its end.
func (n *connector) Run(ctx context.Context, l transport.Link) error {
	var ws *websocket.Conn
	var w *wire
	var err error
	// A handshake needs much more stack than an idle connection is to keep.
	var dialing sync.WaitGroup
	dialing.Go(func() { ws, w, err = n.dial(ctx, l) })
	dialing.Wait()
	if err != nil {
		return err
	}
	c := &conn{n: n, l: l, ws: ws, wire: w, done: make(chan struct{}), sending: make(chan struct{}, 1), more: make(chan struct{}, 1)}
	w.c = c
	if n.st.HTTP.WSPrioritizeReads {
		c.gate = newGate()
	}
	if err = request.UserState(n.setup, l, http.StatusSwitchingProtocols); err == nil {
		err = l.Connected()
	}
	if err != nil {
		c.close()
		return err
	}
	c.watch()
	c.others.Add(2)
	go c.write()
	stop := context.AfterFunc(ctx, func() {
		defer c.others.Done()
		c.close()
	})
	err = c.read()
	close(c.done)
	c.gate.open()
	if c.stall != nil {
		c.stall.Stop()
	}
	if stop() {
		c.others.Done() // of what is not to be
		c.drain(err)
		_ = ws.CloseNow()
	}
	c.others.Wait()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.validity.Load().Stop()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.why(err)
}

// close closes the connection as RFC 6455 section 7 wants it: 1001 if this side
// goes away, else 1000.
func (c *conn) close() {
	code := websocket.StatusNormalClosure
	if c.n.setup.Closing().Err() != nil {
		code = websocket.StatusGoingAway
	}
	c.closeWith(code)
}

// closeWith sends a close frame, and waits for that of the peer, all of it for
// closeWait at most.
func (c *conn) closeWith(code websocket.StatusCode) {
	c.closing.Store(true)
	late := time.AfterFunc(closeWait, func() { c.wire.Conn.Close() })
	defer late.Stop()
	_ = c.ws.Close(code, "")
}

// fail notes why the connection is given up on this side. The first reason
// stays.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// why returns why the connection has ended. read is what the library returned.
func (c *conn) why(read error) error {
	read = readError(read)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch _, closed := read.(*CloseError); {
	case c.rxErr != nil:
		return c.rxErr
	case c.err != nil:
		return c.err
	case c.writeErr != nil && !closed:
		return c.writeErr
	}
	return read
}

// drain reads what the peer still sends on a connection that has failed:
// closing it at once could make the peer lose the close frame, which says why.
func (c *conn) drain(err error) {
	if _, closed := readError(err).(*CloseError); closed || c.closing.Load() {
		return
	}
	_ = c.wire.Conn.SetReadDeadline(time.Now().Add(drainWait))
	_, _ = io.CopyN(io.Discard, c.wire.Conn, drainSize)
}

// watch starts to watch over the validity of the connection.
func (c *conn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.validity.Store(c.n.setup.Watch(c.ping, c.invalid))
}

// invalid is called when svalidhup has passed without a word from the peer.
func (c *conn) invalid() {
	if c.inRx.Load() {
		// Nothing has been read, since the program does not want it. The watch
		// begins anew when it does, by whoever sees that first.
		c.unheard.Store(true)
		if !c.inRx.Load() && c.unheard.CompareAndSwap(true, false) {
			c.watch()
		}
		return
	}
	c.fail(transport.ErrNoValidity)
	c.wire.Conn.Close()
}

// ping sends a PING. That an answer comes is noticed where it is read.
func (c *conn) ping() {
	ctx, cancel := context.WithTimeout(context.Background(), pingWait)
	defer cancel()
	_ = c.ws.Ping(ctx)
}
