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

// A connection that is quiet has a small buffer, or none. While pieces come that
// fill it, it reads into one of those that connections share. Most records of TLS
// that are one of many have recordSize bytes, which is the most.
const (
	smallBuffer = 2 << 10
	recordSize  = 16 << 10
	largeBuffer = 64 << 10
)

// mostReplies is how many pieces the reading goroutine sends before it reads on,
// and patience how long it waits, in all of that, for the peer to make room.
const (
	mostReplies = 64
	patience    = 10 * time.Millisecond
)

// defaultLimit is the limit of a handshake in a context without ConnectTimeout,
// as in lws.
const defaultLimit = 15 * time.Second

var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// A session is one connection. The goroutine of Run reads and does handshakes,
// and sends what the program asks to send while it is told what has been read, as
// far as that needs no long wait: else a peer that reads nothing while it can not
// send would stop both. All else another goroutine sends, which is there while
// there is something to send.
type session struct {
	k      *Socket
	setup  *transport.Setup
	l      transport.Link
	ctx    context.Context
	base   net.Conn      // without TLS
	direct *direct       // base, if it can be used so; else nil
	limit  time.Duration // of a handshake, and of a write when the peer has ended
	fin    atomic.Bool   // the peer has ended base, under TLS
	awake  atomic.Bool   // the writer is there, and will look for what there is to send

	// Below is guarded by mu of k; turn says that some of it has changed.
	turn       sync.Cond
	conn       net.Conn // base, or TLS over it; changed while nobody uses it
	connected  bool     // CONNECTED has been, or is being, delivered
	over       bool     // it is to end
	why        error    // if not by the peer
	upgrade    *upgrade // a handshake is to be done, or under way
	writing    bool     // something is being sent, or is in rest
	rest       *rest    // what the reader has left to the writer; mostly nil
	mute       bool     // nothing more can be sent
	closeWrite bool     // what is sent is to end
	draining   bool     // the peer has ended what it sends
	broken     error    // why nothing can be sent
	received   int64    // bytes of payload
}

// A rest is what is left of a piece.
type rest struct {
	buf  *[largeBuffer]byte
	from int
	to   int
	last bool // there is none after it
}

// An upgrade is TLS that is to start.
type upgrade struct {
	mode    Mode
	goAhead []byte // to be sent in clear before
}

func newSession(ctx context.Context, setup *transport.Setup, l transport.Link, k *Socket, conn net.Conn) *session {
	s := &session{k: k, setup: setup, l: l, ctx: ctx, base: conn, direct: newDirect(conn), conn: conn, limit: setup.ConnectTimeout()}
	if s.limit == 0 {
		s.limit = defaultLimit
	}
	s.turn.L = &k.mu
	return s
}

// run carries the connection to its end.
func (s *session) run() (err error) {
	defer s.base.Close()
	defer context.AfterFunc(s.ctx, func() {
		s.k.mu.Lock()
		defer s.k.mu.Unlock()
		s.end(context.Cause(s.ctx))
	})()
	k := s.k
	k.mu.Lock()
	k.s, k.state = s, State{}
	later := k.config.Later
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		changed := k.state.Mode != Unencrypted
		k.s, k.state.Mode, k.state.Encrypted = nil, Unencrypted, false
		k.mu.Unlock()
		if changed {
			_ = s.modeChanged(Unencrypted) // an error is that of a link that has ended
		}
	}()
	if s.l.Target().TLS && !later {
		k.mu.Lock()
		k.state.Mode = Client
		k.mu.Unlock()
		if err := s.handshake(Client); err != nil {
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
	err = s.read()
	if err == io.EOF {
		err = s.drain()
	}
	k.mu.Lock()
	s.end(nil)
	if s.why != nil {
		err = s.why
	}
	s.awaitWriter()
	k.mu.Unlock()
	if secure, ok := s.conn.(*tls.Conn); ok {
		s.base.SetDeadline(time.Time{})
		secure.Close() // which sends close_notify
	}
	return err
}

// end makes reader and writer return. mu of k is held.
func (s *session) end(why error) {
	if s.over {
		return
	}
	s.over, s.why = true, why
	if s.base.SetDeadline(past) != nil {
		s.base.Close()
	}
	s.turn.Broadcast()
}

// read delivers what comes, until the end, and starts TLS when that is asked for.
func (s *session) read() error {
	defer s.direct.release()
	var small []byte
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for {
		conn, err := s.ready()
		if err != nil {
			return err
		}
		if s.direct != nil && conn == s.base {
			if err := s.readDirect(); err != nil {
				return err
			}
			continue
		}
		s.direct.release()
		if small == nil {
			small = make([]byte, smallBuffer)
		}
		buf := small
		if large != nil {
			buf = large[:]
		}
		n, err := conn.Read(buf)
		if n > 0 {
			if err := s.got(n); err != nil {
				return err
			}
			if err := s.l.Rx(buf[:n], 0); err != nil {
				return err
			}
		}
		if err != nil {
			if again, err := s.readError(err); !again {
				return err
			}
			continue
		}
		switch {
		case large == nil && n == len(buf):
			large = buffers.Get().(*[largeBuffer]byte)
		case large != nil && n < recordSize:
			buffers.Put(large)
			large = nil
		}
	}
}

// readDirect delivers a piece from a socket, and sends what is asked for.
func (s *session) readDirect() error {
	p, err := s.direct.read()
	if err != nil {
		_, err = s.readError(err)
		return err
	}
	if err := s.got(len(p)); err != nil {
		return err
	}
	ask, err := s.l.RxReply(p, 0)
	if err == nil && ask {
		s.reply()
	}
	return err
}

// reply sends what the program has asked to send, in the place of the writer, as
// far as that needs no long wait.
func (s *session) reply() {
	if !s.awake.CompareAndSwap(false, true) {
		return // the writer sees to it
	}
	waits := false
	var left *rest
	for i := 0; i < mostReplies && left == nil && s.begin(); i++ {
		left = s.replyPiece(&waits)
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if waits && !s.over {
		s.base.SetWriteDeadline(time.Time{})
	}
	s.rest = left
	if left != nil || s.closeWrite || !s.sleep() {
		go s.write()
	}
}

// begin reports whether the reader is to send something.
func (s *session) begin() bool {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.upgrade != nil || s.over || s.mute || !s.l.WantsTx() {
		return false
	}
	s.writing = true
	return true
}

// replyPiece sends a piece. It returns what is left of it. waits says whether
// there is a deadline for all of them.
func (s *session) replyPiece(waits *bool) *rest {
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
		sent, err = s.direct.write(buf[:n], *waits)
	}
	if err == nil && sent < n {
		*waits = true
		s.k.mu.Lock()
		if !s.over {
			s.base.SetWriteDeadline(time.Now().Add(patience))
		}
		s.k.mu.Unlock()
		var more int
		more, err = s.direct.write(buf[sent:n], true)
		sent += more
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil // if it is end that has set it, the writer will see
	}
	last := piece.Flags&policy.FlagEnd != 0
	if err == nil && (sent < n || last) {
		return &rest{buf, sent, n, last}
	}
	buffers.Put(buf)
	s.finish(err)
	return nil
}

// ready returns what to read from.
func (s *session) ready() (net.Conn, error) {
	s.k.mu.Lock()
	up := s.upgrade
	switch {
	case s.over:
		defer s.k.mu.Unlock()
		return nil, s.ended()
	case up == nil:
		defer s.k.mu.Unlock()
		if s.broken != nil {
			s.base.SetReadDeadline(time.Now().Add(s.limit))
		}
		return s.conn, nil
	}
	// What is on its way goes out in clear, and no more.
	for s.writing && !s.over {
		s.turn.Wait()
	}
	if s.over {
		defer s.k.mu.Unlock()
		return nil, s.ended()
	}
	s.base.SetReadDeadline(time.Time{})
	if len(up.goAhead) > 0 {
		s.base.SetWriteDeadline(time.Now().Add(s.limit))
	}
	s.k.mu.Unlock()
	if len(up.goAhead) > 0 {
		if _, err := s.base.Write(up.goAhead); err != nil {
			return nil, err
		}
	}
	if err := s.handshake(up.mode); err != nil {
		return nil, err
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.over {
		return nil, s.ended()
	}
	s.base.SetDeadline(time.Time{})
	s.upgrade = nil
	s.turn.Broadcast()
	return s.conn, nil
}

// ended returns why it is to end. mu of k is held.
func (s *session) ended() error {
	if s.why != nil {
		return s.why
	}
	return transport.ErrClosed
}

// got counts what has been read. There must be none once TLS is to start.
func (s *session) got(n int) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.upgrade != nil {
		return ErrPlaintext
	}
	s.received += int64(n)
	return nil
}

// readError reports whether to go on after an error of Read, and if not, with
// which error to end.
func (s *session) readError(err error) (again bool, _ error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	switch {
	case s.over:
		return false, s.ended()
	case s.upgrade != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return true, nil
	case s.upgrade != nil && err == io.EOF:
		return false, &HandshakeError{s.upgrade.mode, io.ErrUnexpectedEOF}
	case s.broken != nil:
		return false, s.broken
	case err == io.EOF && s.k.state.Encrypted && s.fin.Load():
		// crypto/tls lets it pass, for web sites; but here nothing else tells the
		// end from one that somebody in between has made (RFC 8446 section 6.1).
		return false, fmt.Errorf("sspolicy: raw: the end of TLS without close_notify: %w", io.ErrUnexpectedEOF)
	}
	return false, err
}

// A noticed is a connection that notes that the peer has ended it.
type noticed struct {
	net.Conn
	fin *atomic.Bool
}

func (n *noticed) Read(b []byte) (int, error) {
	k, err := n.Conn.Read(b)
	if err == io.EOF {
		n.fin.Store(true)
	}
	return k, err
}

// drain lets the writer send what it has been asked to, when the peer has ended.
func (s *session) drain() error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.draining = true
	if !s.over {
		s.base.SetWriteDeadline(time.Now().Add(s.limit)) // of what is being sent
	}
	s.wake()
	s.awaitWriter()
	if s.broken != nil {
		return s.broken
	}
	return io.EOF
}

// awaitWriter waits until the writer is not there. mu of k is held.
func (s *session) awaitWriter() {
	for s.awake.Load() {
		s.turn.Wait()
	}
}

// wake makes the writer look for what there is to send. It is called with locks
// held, among them that of the stream.
func (s *session) wake() {
	if s.awake.CompareAndSwap(false, true) {
		go s.write()
	}
}

// write sends what there is to send.
func (s *session) write() {
	for s.step() {
	}
}

// step sends a piece, or ends what is sent, if the program has asked for that.
// It waits while TLS is being started. It reports whether the writer goes on.
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
		return !s.sleep()
	case left != nil: // writing is set
		s.rest = nil
	case s.l.WantsTx():
	case s.closeWrite:
		s.closeWrite, end = false, true
	default:
		defer s.k.mu.Unlock()
		return !s.sleep()
	}
	s.writing = true
	if s.draining {
		s.base.SetWriteDeadline(time.Now().Add(s.limit))
	}
	s.k.mu.Unlock()
	switch {
	case left != nil:
		s.send(conn, left)
	case end:
		s.shut(conn)
	default:
		s.ask(conn)
	}
	return true
}

// sleep says that the writer is not there any more. It reports false if it has to
// be: what has been asked for meanwhile has not woken anybody. mu of k is held.
func (s *session) sleep() bool {
	s.awake.Store(false)
	s.turn.Broadcast()
	return s.over || s.mute || !s.l.WantsTx() || !s.awake.CompareAndSwap(false, true)
}

// ask asks the program for a piece, and sends it.
func (s *session) ask(conn net.Conn) {
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

// silence says that there is nothing more to send, since the link has ended.
func (s *session) silence() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.writing, s.mute = false, true
	s.turn.Broadcast()
}

// finish says that nothing is being sent. After an error nothing more can be, but
// what the peer has sent before may still be read.
func (s *session) finish(err error) {
	s.k.mu.Lock()
	s.writing = false
	s.turn.Broadcast()
	if err != nil {
		s.mute = true
	}
	broken := err != nil && !s.over
	if broken {
		s.broken = err
		s.base.SetReadDeadline(time.Now().Add(s.limit))
	}
	s.k.mu.Unlock()
	if broken {
		s.l.FailTx(err)
	}
}

// shut ends what is sent.
func (s *session) shut(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	err := fmt.Errorf("sspolicy: raw: half close of a %T: %w", conn, errors.ErrUnsupported)
	if ok {
		err = half.CloseWrite()
	}
	s.finish(err)
	if err != nil {
		s.k.mu.Lock()
		s.end(err)
		s.k.mu.Unlock()
	}
}

// handshake starts TLS.
func (s *session) handshake(mode Mode) error {
	if err := s.modeChanged(mode); err != nil {
		return err
	}
	k := s.k
	k.mu.Lock()
	c := k.config
	k.mu.Unlock()
	var wrong error
	config, err := s.tlsConfig(c, mode, func(err error) { wrong = err })
	if err != nil {
		return err
	}
	start := tls.Client
	if mode == Server {
		start = tls.Server
	}
	secure := start(&noticed{s.base, &s.fin}, config)
	ctx, cancel := context.WithTimeoutCause(s.ctx, s.limit, transport.ErrTimeout)
	defer cancel()
	trace := transport.Trace(s.ctx)
	trace.TLSHandshakeStart()
	var shaking sync.WaitGroup // elsewhere, for its stack
	shaking.Go(func() { err = secure.HandshakeContext(ctx) })
	shaking.Wait()
	trace.TLSHandshakeDone(tls.ConnectionState{}, err)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case errors.Is(err, io.EOF): // which would be an end in good order
			err = io.ErrUnexpectedEOF
		}
		return &HandshakeError{mode, err}
	}
	k.mu.Lock()
	s.conn = secure
	k.state.Encrypted = true
	k.state.TLS, k.state.VerifyError = secure.ConnectionState(), wrong
	if c.Verify == VerifyNone {
		k.state.TLS.PeerCertificates, k.state.TLS.VerifiedChains = nil, nil
	}
	k.mu.Unlock()
	if c.Encrypted == nil {
		return nil
	}
	return s.l.Call(func() policy.Result { return c.Encrypted(k) })
}

// modeChanged tells the program that the mode has changed.
func (s *session) modeChanged(mode Mode) error {
	s.k.mu.Lock()
	f := s.k.config.ModeChanged
	s.k.mu.Unlock()
	if f == nil {
		return nil
	}
	return s.l.Call(func() policy.Result { return f(s.k, mode) })
}
