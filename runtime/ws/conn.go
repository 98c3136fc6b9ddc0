package ws

import (
	"context"
	"errors"
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
	// bufferSize is the maximum size of a piece for Rx or Tx.
	bufferSize = 16 << 10

	// closeWait is the time limit of the closing handshake.
	closeWait = 2 * time.Second

	// stallWait is how long the reading goroutine may be blocked in a write before
	// another one replaces it. It may take up to twice as long.
	stallWait = 10 * time.Millisecond

	// drainWait and drainSize limit the reads of drain.
	drainWait = 500 * time.Millisecond
	drainSize = 1 << 20

	// pongWait is how long the answer to a PING waits for a frame that is being
	// written. The library would wait longer, and then close the connection.
	pongWait = 3 * time.Second

	// pingWait is how long ping waits for the PONG. The policy's svalidhup decides
	// about a missing one. The library takes at most 5 s to send a PING.
	pingWait = 8 * time.Second
)

var (
	rxBuffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}
	txBuffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}
)

// A wire is the network connection as the library sees it.
type wire struct {
	net.Conn
	first []byte            // read from the network but not by the library: after the handshake or a message
	rest  *[bufferSize]byte // backing array of first, or nil
	c     *conn

	// Used only by the reader of the library.
	check     checker
	violation *ProtocolError // by the peer, after the data passed to the library
	seen      atomic.Uint32

	closeSent atomic.Bool // a close frame has been written

	wmu   lock
	batch *[batchSize]byte // nil unless writes are batched
	n     int              // bytes in batch
}

// Close closes the connection. The library calls it too.
func (w *wire) Close() error { return transport.Close(w.Conn) }

// batchSize is the size of a piece of a message with its frames: the library writes
// 4 KiB at a time.
const batchSize = bufferSize + 4<<10

var batchBuffers = sync.Pool{New: func() any { return new([batchSize]byte) }}

// hold starts to batch writes, until release.
func (w *wire) hold() {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	w.batch = batchBuffers.Get().(*[batchSize]byte)
}

// release writes the batch.
func (w *wire) release() error {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	err := w.writeBatchLocked()
	batchBuffers.Put(w.batch)
	w.batch = nil
	return err
}

func (w *wire) writeBatchLocked() error {
	if w.n == 0 {
		return nil
	}
	_, err := w.Conn.Write(w.batch[:w.n])
	w.n = 0
	return err
}

// Write writes to the connection.
func (w *wire) Write(p []byte) (int, error) {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if w.batch == nil {
		n, err := w.Conn.Write(p)
		if err == nil && len(p) > 0 && p[0] == closeFrame && w.c != nil && w.c.closing.Load() {
			w.closeSent.Store(true)
		}
		return n, err
	}
	if len(p) > len(w.batch)-w.n {
		if err := w.writeBatchLocked(); err != nil {
			return 0, err
		}
		if len(p) > len(w.batch) {
			return w.Conn.Write(p)
		}
	}
	w.n += copy(w.batch[w.n:], p)
	return len(p), nil
}

// Read reads up to the end of a message, so that the reader of the library is not
// ahead of check, or up to the first violation of the protocol.
func (w *wire) Read(p []byte) (n int, err error) {
	left := w.first
	switch {
	case w.violation != nil:
		w.drain()
		return 0, w.violation
	case len(left) > 0:
		n = copy(p, left)
	case w.c == nil:
		return 0, io.EOF // the library has rejected the response and reads its body
	default:
		n, err = w.c.readWire(p)
	}
	good := 0
	good, w.violation = w.check.check(p[:n])
	switch {
	case len(left) > 0:
		w.first = left[good:]
	case good < n && w.violation == nil:
		w.rest = rxBuffers.Get().(*[bufferSize]byte)
		w.first = w.rest[:copy(w.rest[:], p[good:n])]
	}
	if len(w.first) == 0 && w.rest != nil {
		rxBuffers.Put(w.rest)
		w.rest = nil
	}
	var is wireState
	if w.check.ended {
		is |= seenEnd
	}
	if w.check.text {
		is |= seenText
	}
	if len(w.first) > 0 {
		is |= seenMore
	}
	w.seen.Store(uint32(is))
	if good == 0 && w.violation != nil {
		return 0, w.violation
	}
	return good, err
}

// A wireState is what Read has seen, for other goroutines.
type wireState uint32

const (
	seenEnd  wireState = 1 << iota // the latest message is complete
	seenText                       // it is text that was checked
	seenMore                       // more has arrived
)

func (w *wire) is(s wireState) bool { return wireState(w.seen.Load())&s != 0 }

// closeFrame is the first byte of a close frame.
const closeFrame = 0x88

// drain closes the sending direction after a close frame, so that the peer does not
// have to wait, and reads the rest of the peer's data: an immediate close could
// make the peer lose the close frame, which contains the reason.
func (w *wire) drain() {
	if w.c == nil || !w.c.closing.Load() {
		return
	}
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok && w.closeSent.Load() {
		_ = half.CloseWrite()
	}
	_ = w.Conn.SetReadDeadline(time.Now().Add(drainWait))
	_, _ = io.CopyN(io.Discard, w.Conn, drainSize)
}

// A conn is one connection. The goroutine of the stream reads, another one writes;
// see reply.
type conn struct {
	n    *connector
	l    transport.Link
	ws   *websocket.Conn
	wire *wire
	gate *gate // nil without ws_prioritize_reads

	others   sync.WaitGroup // goroutines other than that of the stream
	ended    atomic.Bool    // read has returned
	closing  atomic.Bool    // a close frame has been sent, or is about to be
	inRx     atomic.Bool    // Rx is running, so silence of the peer proves nothing
	expired  atomic.Bool    // svalidhup has passed meanwhile
	validity atomic.Pointer[transport.Validity]

	sends lock    // locked during Tx and the write after it
	m     message // current message; guarded by sends

	mu         sync.Mutex
	err        error         // why this side closes the connection
	writeErr   error         // of the first write that failed
	sent       chan struct{} // closed when sending ends; nil unless mayPong waits
	over       bool          // Run is about to return
	writing    bool          // the writing goroutine exists
	again      bool          // it must check again for payload to send
	sending    bool          // a frame of a message is being written
	flushing   bool          // a PING that flushes is in progress
	flushAgain bool          // another one follows

	// Used by the reading goroutine, or one that reads in its place.
	wantsTx bool       // the program has requested a Tx in Rx
	r       io.Reader  // of a message that has begun, or nil
	text    *utf8Check // of a message that wire.check could not check, or nil
	rxErr   error      // the link has ended
	flags   policy.Flags

	// About replies; see reply.
	replaced bool          // the reading goroutine is not that of the stream
	checking atomic.Bool   // stall is running
	turns    atomic.Uint64 // number of starts and ends of replies: odd during one
	stall    *time.Timer   // calls checkStall; nil until the first reply
	checked  uint64        // turns at the latest check
	readErr  chan error    // receives the result of a reader that replaced the stream's
}

// Run makes one connection and serves it until its end.
func (n *connector) Run(ctx context.Context, l transport.Link) error {
	var ws *websocket.Conn
	var w *wire
	var err error
	transport.Connect(ctx, l, func(ctx context.Context) { ws, w, err = n.dial(ctx, l) })
	if err != nil {
		return err
	}
	c := n.newConn(l, ws, w)
	if err = request.UserState(n.setup, l, http.StatusSwitchingProtocols); err == nil {
		err = l.Connected()
	}
	if err != nil {
		c.close()
		return err
	}
	return c.run(ctx)
}

// newConn returns the connection that the library made on w.
func (n *connector) newConn(l transport.Link, ws *websocket.Conn, w *wire) *conn {
	c := &conn{n: n, l: l, ws: ws, wire: w}
	w.c = c
	if n.st.HTTP.WSPrioritizeReads {
		c.gate = newGate()
	}
	return c
}

// run serves the connection, after CONNECTED, until its end.
func (c *conn) run(ctx context.Context) error {
	c.watch()
	c.l.Notify(c.sendMore)
	c.l.ServeTx(c.serveTx)
	c.others.Add(1)
	c.l.OnEnd(func() {
		defer c.others.Done()
		c.close()
	})
	err := c.read()
	c.ended.Store(true)
	c.gate.open()
	if c.stall != nil {
		c.stall.Stop()
	}
	if c.l.OnEnd(nil) {
		c.others.Done() // for the function of OnEnd, which will not run
		if v, ok := errors.AsType[*ProtocolError](err); ok {
			c.closeWith(websocket.StatusCode(v.Code))
		}
		_ = c.ws.CloseNow()
	}
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.sends.Lock()   // a goroutine of the program may be sending
	c.sends.Unlock() //lint:ignore SA2001 it only waits
	c.others.Wait()
	c.validity.Load().Stop()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.cause(err)
}

// close closes the connection as in RFC 6455 section 7, with code 1001 if the
// context is closing, otherwise 1000.
func (c *conn) close() {
	code := websocket.StatusNormalClosure
	if c.n.setup.Closing().Err() != nil {
		code = websocket.StatusGoingAway
	}
	c.closeWith(code)
}

// closeWith sends a close frame and waits up to closeWait for the peer's.
func (c *conn) closeWith(code websocket.StatusCode) {
	c.closing.Store(true)
	late := time.AfterFunc(closeWait, func() { c.wire.Close() })
	defer late.Stop()
	_ = c.ws.Close(code, "")
}

// fail sets the reason why this side closes the connection, unless it is set.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// cause returns why the connection has ended. err is the error of the reader.
func (c *conn) cause(err error) error {
	err = readError(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, reads := err.(*CloseError)
	reads = reads || errors.Is(c.writeErr, net.ErrClosed) // after an error of the reader
	switch {
	case c.rxErr != nil:
		return c.rxErr
	case c.err != nil:
		return c.err
	case c.writeErr != nil && !reads:
		return c.writeErr
	}
	return err
}

// watch starts to watch the validity of the connection.
func (c *conn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.validity.Store(c.n.setup.Watch(c.ping, c.invalid))
}

// invalid is called when svalidhup has passed without a sign of life from the peer.
func (c *conn) invalid() {
	if c.inRx.Load() {
		// Nothing is read while Rx runs. The watch restarts after it: here if it
		// has returned meanwhile, otherwise in rx.
		c.expired.Store(true)
		if !c.inRx.Load() && c.expired.CompareAndSwap(true, false) {
			c.watch()
		}
		return
	}
	c.fail(transport.ErrNoValidity)
	c.wire.Close()
}

// ping sends a PING. readWire confirms the validity when the answer arrives.
func (c *conn) ping() {
	ctx, cancel := context.WithTimeout(context.Background(), pingWait)
	defer cancel()
	c.wire.check.pings.Add(1)
	_ = c.ws.Ping(ctx)
}
