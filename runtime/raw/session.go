package raw

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// An idle connection has a small buffer, or none. While pieces fill it, reads use a
// large buffer from a pool. recordSize is the maximum size of a TLS record, which
// is also the usual one in a long transfer.
const (
	smallBuffer = 2 << 10
	recordSize  = 16 << 10
	largeBuffer = 64 << 10
)

// maxReplies is the maximum number of pieces that the reading goroutine sends
// before it reads again, and replyWait is how long it may block in total during
// them.
const (
	maxReplies = 64
	replyWait  = 10 * time.Millisecond
)

// defaultLimit is the time limit of a handshake in a context without
// ConnectTimeout, as in lws.
const defaultLimit = 15 * time.Second

var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// A session is one connection. The goroutine of Run, the reader, reads and does
// handshakes. It also sends replies inline while the write does not block for long:
// with a peer that does not read while it writes, both would wait forever. The rest
// is sent by the writer, a goroutine that exists while there is data to send.
type session struct {
	k      *Socket
	setup  *transport.Setup
	l      transport.Link
	ctx    context.Context
	base   net.Conn            // without TLS
	direct *directConn         // of base, or nil
	limit  time.Duration       // of a handshake, and of a write after the peer has ended; 0 means none
	idle   *transport.Validity // of a server; nil without a limit
	fin    atomic.Bool         // the peer has closed its direction of base, under TLS
	awake  atomic.Bool         // the writer exists and will check for data to send

	// Used by the reader, for TLS.
	small []byte
	large *[largeBuffer]byte // nil unless pieces fill small

	// Guarded by the mu of k; turn signals changes.
	turn       sync.Cond
	conn       net.Conn // base, or TLS over it
	connected  bool     // CONNECTED has been, or is being, delivered
	over       bool     // the session must end
	cause      error    // why, unless the peer has ended it
	upgrade    *upgrade // a pending or running handshake
	writing    bool     // a piece is being sent, or is in rest
	rest       *rest    // left by the reader to the writer; usually nil
	mute       bool     // no more can be sent
	closeWrite bool     // the sending direction must be closed
	draining   bool     // the peer has closed its direction
	writeErr   error    // why no more can be sent
	received   int64    // bytes of payload
}

// A rest is the unsent part of a piece.
type rest struct {
	buf  *[largeBuffer]byte
	from int
	to   int
	last bool // no other piece follows
}

// An upgrade is a request to start TLS.
type upgrade struct {
	mode    Mode
	start   starter
	goAhead []byte // to send in clear before the handshake
}

func newSession(ctx context.Context, setup *transport.Setup, l transport.Link, k *Socket, conn net.Conn) *session {
	s := &session{k: k, setup: setup, l: l, ctx: ctx, base: conn, direct: newDirectConn(conn), conn: conn, limit: setup.ConnectTimeout()}
	if s.limit == 0 {
		s.limit = defaultLimit
	}
	s.turn.L = &k.mu
	return s
}

// deadline returns the deadline of an operation that begins now, or the zero time.
func (s *session) deadline() time.Time {
	if s.limit <= 0 {
		return time.Time{}
	}
	return time.Now().Add(s.limit)
}

// run serves the connection to its end. first, if not nil, is a handshake before
// CONNECTED.
func (s *session) run(first *upgrade) (err error) {
	defer transport.Close(s.base)
	s.l.OnEnd(func() {
		s.k.mu.Lock()
		defer s.k.mu.Unlock()
		s.endLocked(context.Cause(s.ctx))
	})
	defer s.l.OnEnd(nil)
	k := s.k
	k.mu.Lock()
	k.s, k.mode, k.encrypted, k.handshake = s, Unencrypted, false, nil
	later := k.config.Later
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		changed := k.s == s && k.mode != Unencrypted
		if k.s == s { // another attempt may have begun independently
			k.s, k.mode, k.encrypted = nil, Unencrypted, false
		}
		k.mu.Unlock()
		if changed {
			_ = s.modeChanged(Unencrypted) // fails if the link has ended
		}
	}()
	if later {
		first = nil
	}
	err = s.exchange(first)
	k.mu.Lock() // the writer must not outlive the link
	s.endLocked(nil)
	if s.cause != nil {
		err = s.cause
	}
	s.awaitWriterLocked()
	k.mu.Unlock()
	if s.conn != s.base {
		s.base.SetDeadline(time.Time{})
		transport.Close(s.conn) // sends close_notify
	}
	return err
}

// exchange connects, and transfers payload until the end.
func (s *session) exchange(first *upgrade) error {
	k := s.k
	if first != nil {
		k.mu.Lock()
		k.mode = first.mode
		k.mu.Unlock()
		if err := s.handshake(first); err != nil {
			return err
		}
	}
	transport.Trace(s.ctx).GotConn(httptrace.GotConnInfo{Conn: s.base})
	k.mu.Lock()
	s.connected = true
	k.mu.Unlock()
	if err := s.l.Connected(); err != nil {
		return err
	}
	s.l.Notify(s.wake)
	s.l.ServeTx(s.serveTx)
	err := s.read()
	if err == io.EOF {
		if err = s.l.RxClosed(); err == nil {
			err = s.drain()
		}
	}
	return err
}

// endLocked makes the reader and the writer return.
func (s *session) endLocked(cause error) {
	if s.over {
		return
	}
	s.over, s.cause = true, cause
	if s.base.SetDeadline(past) != nil {
		go transport.Close(s.base)
	}
	s.turn.Broadcast()
}

// read delivers payload until the end, and starts TLS when requested.
func (s *session) read() error {
	defer func() {
		s.direct.release()
		if s.large != nil {
			buffers.Put(s.large)
		}
	}()
	step := s.readStep
	for {
		if err := s.l.Lend(step); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
}

// readStep delivers one piece, or does a pending handshake.
func (s *session) readStep() error {
	conn, err := s.ready()
	if err != nil {
		return err
	}
	if s.direct != nil && conn == s.base {
		return s.readDirect()
	}
	s.direct.release()
	if s.small == nil {
		s.small = make([]byte, smallBuffer)
	}
	buf := s.small
	if s.large != nil {
		buf = s.large[:]
	}
	n, err := conn.Read(buf)
	if n > 0 {
		if err := s.count(n); err != nil {
			return err
		}
		if err := s.l.Rx(buf[:n], 0); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		if retry, err := s.readError(err); !retry {
			return err
		}
	case s.large == nil && n == len(buf):
		s.large = buffers.Get().(*[largeBuffer]byte)
	case s.large != nil && n < recordSize:
		buffers.Put(s.large)
		s.large = nil
	}
	return nil
}

// readDirect delivers a piece from a socket, and sends replies.
func (s *session) readDirect() error {
	p, err := s.direct.read()
	if err != nil {
		_, err = s.readError(err)
		return err
	}
	if err := s.count(len(p)); err != nil {
		return err
	}
	wantsTx, err := s.l.RxReply(p, 0)
	if err == nil && wantsTx {
		s.reply()
	}
	return err
}

// reply sends data that the program requests to send, in place of the writer, as
// long as the writes do not block for long.
func (s *session) reply() {
	if !s.awake.CompareAndSwap(false, true) {
		return // the writer sends it
	}
	waited := false
	var left *rest
	for i := 0; i < maxReplies && left == nil && s.begin() != nil; i++ {
		left = s.replyPiece(&waited)
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if waited && !s.over {
		s.base.SetWriteDeadline(time.Time{})
	}
	s.rest = left
	if left != nil || s.closeWrite || !s.sleepLocked() {
		go s.write()
	}
}

// begin begins a piece, if there is one to send, and returns the connection for it.
func (s *session) begin() net.Conn {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.upgrade != nil || s.over || s.mute || s.draining || !s.l.WantsTx() {
		return nil
	}
	s.writing = true
	return s.conn
}

// replyPiece sends a piece and returns its unsent part. waited reports whether the
// time for all replies is running.
func (s *session) replyPiece(waited *bool) *rest {
	buf := s.direct.take()
	piece, err := s.l.Tx(buf[:])
	if err != nil {
		buffers.Put(buf)
		s.silence()
		return nil
	}
	n := piece.N
	sent := 0
	if n > 0 {
		sent, err = s.direct.write(buf[:n], *waited)
	}
	if err == nil && sent < n {
		*waited = true
		s.k.mu.Lock()
		if !s.over {
			s.base.SetWriteDeadline(time.Now().Add(replyWait))
		}
		s.k.mu.Unlock()
		var more int
		more, err = s.direct.write(buf[sent:n], true)
		sent += more
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil // the writer continues, or sees that the session is over
	}
	last := piece.Flags&policy.FlagEnd != 0
	if err == nil && (sent < n || last) {
		return &rest{buf, sent, n, last}
	}
	buffers.Put(buf)
	s.finish(err)
	return nil
}

// ready returns the connection to read from, after a pending handshake.
func (s *session) ready() (net.Conn, error) {
	s.k.mu.Lock()
	up := s.upgrade
	switch {
	case s.over:
		defer s.k.mu.Unlock()
		return nil, s.causeLocked()
	case up == nil:
		defer s.k.mu.Unlock()
		if s.writeErr != nil {
			s.base.SetReadDeadline(s.deadline())
		}
		return s.conn, nil
	}
	// The piece being sent is completed in clear.
	for s.writing && !s.over {
		s.turn.Wait()
	}
	if s.over {
		defer s.k.mu.Unlock()
		return nil, s.causeLocked()
	}
	s.base.SetReadDeadline(time.Time{})
	if len(up.goAhead) > 0 {
		s.base.SetWriteDeadline(s.deadline())
	}
	s.k.mu.Unlock()
	if len(up.goAhead) > 0 {
		if _, err := s.base.Write(up.goAhead); err != nil {
			return nil, err
		}
	}
	if err := s.handshake(up); err != nil {
		return nil, err
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.over {
		return nil, s.causeLocked()
	}
	s.base.SetDeadline(time.Time{})
	s.upgrade = nil
	s.turn.Broadcast()
	return s.conn, nil
}

// causeLocked returns why the session ends.
func (s *session) causeLocked() error {
	if s.cause != nil {
		return s.cause
	}
	return transport.ErrClosed
}

// count counts payload. It fails if a handshake is pending.
func (s *session) count(n int) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.upgrade != nil {
		return ErrPlaintext
	}
	s.received += int64(n)
	s.idle.Confirm()
	return nil
}

// readError reports whether to read again after an error of Read. If not, it
// returns the error to end with.
func (s *session) readError(err error) (retry bool, _ error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	switch {
	case s.over:
		return false, s.causeLocked()
	case s.upgrade != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return true, nil
	case s.upgrade != nil && err == io.EOF:
		return false, &HandshakeError{s.upgrade.mode, io.ErrUnexpectedEOF}
	case s.writeErr != nil:
		return false, s.writeErr
	case err == io.EOF && s.k.encrypted && s.fin.Load():
		// crypto/tls accepts it, for web sites. Here nothing else distinguishes it
		// from an end made by an attacker (RFC 8446 section 6.1).
		return false, fmt.Errorf("sspolicy: raw: the end of TLS without close_notify: %w", io.ErrUnexpectedEOF)
	}
	return false, err
}

// A finConn is a connection that records the end of its stream in fin.
type finConn struct {
	net.Conn
	fin *atomic.Bool
}

func (c *finConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == io.EOF {
		c.fin.Store(true)
	}
	return n, err
}

// drain waits until the writer has sent everything, after the peer has closed its
// direction.
func (s *session) drain() error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.draining = true
	if !s.over {
		s.base.SetWriteDeadline(s.deadline())
	}
	s.wake()
	s.awaitWriterLocked()
	if s.writeErr != nil {
		return s.writeErr
	}
	return io.EOF
}

// awaitWriterLocked waits for the end of the writer.
func (s *session) awaitWriterLocked() {
	for s.awake.Load() {
		s.turn.Wait()
	}
}

// wake starts the writer unless it exists. It may be called with locks held, such as
// that of the stream.
func (s *session) wake() {
	if s.awake.CompareAndSwap(false, true) {
		go s.write()
	}
}

// serveTx runs the writer on a goroutine of the program, usually for one piece.
func (s *session) serveTx() {
	if !s.awake.CompareAndSwap(false, true) {
		return // the writer sends it
	}
	if conn := s.begin(); conn != nil {
		s.sendTx(conn)
	}
	s.k.mu.Lock()
	asleep := s.rest == nil && !s.closeWrite && s.sleepLocked()
	s.k.mu.Unlock()
	if !asleep {
		s.write()
	}
}

// write is the writer.
func (s *session) write() {
	for s.step() {
	}
}

// step sends a piece, or closes the sending direction if that is requested. It
// waits for a pending handshake. It reports whether the writer continues.
func (s *session) step() bool {
	s.k.mu.Lock()
	for !s.over && !s.mute && s.rest == nil && s.upgrade != nil {
		s.turn.Wait()
	}
	conn, left, end := s.conn, s.rest, false
	switch {
	case s.over, s.mute:
		s.rest = nil
		defer s.k.mu.Unlock()
		return !s.sleepLocked()
	case left != nil: // writing is set
		s.rest = nil
	case s.l.WantsTx():
	case s.closeWrite:
		s.closeWrite, end = false, true
	default:
		defer s.k.mu.Unlock()
		return !s.sleepLocked()
	}
	s.writing = true
	if s.draining {
		s.base.SetWriteDeadline(s.deadline())
	}
	s.k.mu.Unlock()
	switch {
	case left != nil:
		s.send(conn, left)
	case end:
		s.shut(conn)
	default:
		s.sendTx(conn)
	}
	return true
}

// sleepLocked ends the writer. It returns false if the writer must continue,
// because of a request since its last check that did not wake it.
func (s *session) sleepLocked() bool {
	s.awake.Store(false)
	s.turn.Broadcast()
	return s.over || s.mute || !s.l.WantsTx() || !s.awake.CompareAndSwap(false, true)
}

// sendTx calls Tx and sends the piece that it returns.
func (s *session) sendTx(conn net.Conn) {
	buf := buffers.Get().(*[largeBuffer]byte)
	piece, err := s.l.Tx(buf[:])
	if err != nil {
		buffers.Put(buf)
		s.silence()
		return
	}
	s.send(conn, &rest{buf, 0, piece.N, piece.Flags&policy.FlagEnd != 0})
}

// send sends a piece.
func (s *session) send(conn net.Conn, r *rest) {
	defer buffers.Put(r.buf)
	if r.from < r.to {
		if _, err := conn.Write(r.buf[r.from:r.to]); err != nil {
			s.finish(err)
			return
		}
	}
	if r.last {
		s.shut(conn)
		return
	}
	s.finish(nil)
}

// silence ends all writes because the link has ended.
func (s *session) silence() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.writing, s.mute = false, true
	s.turn.Broadcast()
}

// finish ends a piece. After an error no more can be sent, but data that the peer
// has sent before is still read.
func (s *session) finish(err error) {
	s.k.mu.Lock()
	s.writing = false
	s.turn.Broadcast()
	if err != nil {
		s.mute = true
	} else {
		s.idle.Confirm()
	}
	failed := err != nil && !s.over
	if failed {
		s.writeErr = err
		s.base.SetReadDeadline(s.deadline())
	}
	s.k.mu.Unlock()
	if failed {
		s.l.FailTx(err)
	}
}

// shut closes the sending direction.
func (s *session) shut(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	err := fmt.Errorf("sspolicy: raw: half close of a %T: %w", conn, errors.ErrUnsupported)
	if ok {
		err = half.CloseWrite()
	}
	s.finish(err)
	if err != nil {
		s.k.mu.Lock()
		s.endLocked(err)
		s.k.mu.Unlock()
	}
}

// handshake starts TLS.
func (s *session) handshake(u *upgrade) error {
	if err := s.modeChanged(u.mode); err != nil {
		return err
	}
	k := s.k
	k.mu.Lock()
	c := k.config
	k.mu.Unlock()
	var verifyErr error
	secure, err := u.start(s, c, func(err error) { verifyErr = err })
	if err != nil {
		return err
	}
	ctx := s.ctx
	if s.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.limit, transport.ErrTimeout)
		defer cancel()
	}
	trace := transport.Trace(s.ctx)
	trace.TLSHandshakeStart()
	var handshaking sync.WaitGroup // on another stack, as in Run
	handshaking.Go(func() { err = secure.HandshakeContext(ctx) })
	handshaking.Wait()
	trace.TLSHandshakeDone(tls.ConnectionState{}, err)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case errors.Is(err, io.EOF): // io.EOF is a clean end
			err = io.ErrUnexpectedEOF
		}
		return &HandshakeError{u.mode, transport.Printable(err)}
	}
	k.mu.Lock()
	s.conn = secure
	k.encrypted = true
	k.handshake = &State{TLS: secure.ConnectionState(), VerifyError: verifyErr}
	if c.Verify == VerifyNone {
		k.handshake.TLS.PeerCertificates, k.handshake.TLS.VerifiedChains = nil, nil
	}
	k.mu.Unlock()
	if c.Encrypted == nil {
		return nil
	}
	return s.l.Call(func() policy.Result { return c.Encrypted(k) })
}

// modeChanged calls the ModeChanged callback.
func (s *session) modeChanged(mode Mode) error {
	s.k.mu.Lock()
	f := s.k.config.ModeChanged
	s.k.mu.Unlock()
	if f == nil {
		return nil
	}
	return s.l.Call(func() policy.Result { return f(s.k, mode) })
}
