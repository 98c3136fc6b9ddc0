package raw

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
)

// A connection that is quiet has a small buffer of its own. While pieces come
// that fill it, it reads into one of those that connections share.
const (
	smallBuffer = 2 << 10
	largeBuffer = 64 << 10
)

var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// A session is one connection. The goroutine of Run reads and does handshakes;
// another one writes.
type session struct {
	k     *Socket
	l     *runtime.Link
	ctx   context.Context
	base  net.Conn      // without TLS
	limit time.Duration // of a handshake, and of a write when the peer has ended
	kick  chan struct{} // wakes the writer
	wrote chan struct{} // closed when the writer has ended
	fin   atomic.Bool   // the peer has ended base, under TLS
	own   [smallBuffer]byte

	// Below is guarded by mu of k; turn says that some of it has changed.
	turn       sync.Cond
	conn       net.Conn // base, or TLS over it; changed while nobody uses it
	connected  bool     // CONNECTED has been, or is being, delivered
	over       bool     // it is to end
	why        error    // if not by the peer
	upgrade    *upgrade // a handshake is to be done, or under way
	writing    bool     // the writer is at work
	closeWrite bool     // what is sent is to end
	draining   bool     // the peer has ended what it sends
	broken     error    // why nothing can be sent
	received   int64    // bytes of payload
}

// An upgrade is TLS that is to start.
type upgrade struct {
	mode    Mode
	goAhead []byte // to be sent in clear before
}

func newSession(ctx context.Context, l *runtime.Link, k *Socket, conn net.Conn) *session {
	s := &session{k: k, l: l, ctx: ctx, base: conn, conn: conn, limit: l.Context().ConnectTimeout(),
		kick: make(chan struct{}, 1), wrote: make(chan struct{})}
	if s.limit == 0 {
		s.limit = runtime.DefaultConnectTimeout
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
	k.mu.Lock()
	s.connected = true
	k.mu.Unlock()
	if err := s.l.Connected(); err != nil {
		return err
	}
	go s.write(s.l.TxReady())
	err = s.read()
	if err == io.EOF {
		err = s.drain()
	}
	k.mu.Lock()
	s.end(nil)
	if s.why != nil {
		err = s.why
	}
	k.mu.Unlock()
	<-s.wrote
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
	s.wakeWriter()
}

func (s *session) wakeWriter() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// read delivers what comes, until the end, and starts TLS when that is asked for.
func (s *session) read() error {
	buf := s.own[:]
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
			buf = large[:]
		case large != nil && n < smallBuffer:
			buffers.Put(large)
			large, buf = nil, s.own[:]
		}
	}
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
	return runtime.ErrClosed
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
	s.draining = true
	s.wakeWriter()
	s.k.mu.Unlock()
	<-s.wrote
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	return io.EOF
}

// write sends what the program has, a piece for each time it asks to.
func (s *session) write(ready <-chan struct{}) {
	defer close(s.wrote)
	for {
		select {
		case <-ready:
			if !s.send() {
				return
			}
			continue
		default:
		}
		s.k.mu.Lock()
		closeWrite, done := s.closeWrite && !s.over, s.over || s.draining
		s.closeWrite = false
		s.k.mu.Unlock()
		if closeWrite {
			s.shut()
			continue
		}
		if done {
			return
		}
		select {
		case <-ready:
			if !s.send() {
				return
			}
		case <-s.kick:
		}
	}
}

// send sends a piece. It reports whether more may follow.
func (s *session) send() bool {
	conn := s.begin()
	if conn == nil {
		return false
	}
	buf := buffers.Get().(*[largeBuffer]byte)
	defer buffers.Put(buf)
	n, flags, err := s.l.Tx(buf[:])
	if err != nil {
		s.finish(nil)
		return false
	}
	if n > 0 {
		if _, err := conn.Write(buf[:n]); err != nil {
			s.finish(err)
			return false
		}
	}
	s.finish(nil)
	if flags&runtime.FlagEOM != 0 && s.l.TxEnded() {
		s.shut()
	}
	return true
}

// begin returns what to write to; nil if it is too late. It waits while TLS is
// being started.
func (s *session) begin() net.Conn {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	for s.upgrade != nil && !s.over {
		s.turn.Wait()
	}
	if s.over {
		return nil
	}
	if s.draining {
		s.base.SetWriteDeadline(time.Now().Add(s.limit))
	}
	s.writing = true
	return s.conn
}

// finish says that the writer is not at work. After an error nothing more can be
// sent, but what the peer has sent before may still be read.
func (s *session) finish(err error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.writing = false
	s.turn.Broadcast()
	if err != nil && !s.over {
		s.broken = err
		s.base.SetReadDeadline(time.Now().Add(s.limit))
		s.l.TxFailed(err)
	}
}

// shut ends what is sent.
func (s *session) shut() {
	conn := s.begin()
	if conn == nil {
		return
	}
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
	config, err := tlsConfig(s.l, c, mode, func(err error) { wrong = err })
	if err != nil {
		return err
	}
	start := tls.Client
	if mode == Server {
		start = tls.Server
	}
	secure := start(&noticed{s.base, &s.fin}, config)
	ctx, cancel := context.WithTimeoutCause(s.ctx, s.limit, runtime.ErrTimeout)
	defer cancel()
	done := s.l.Perf().Handshake()
	if err := secure.HandshakeContext(ctx); err != nil {
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case errors.Is(err, io.EOF): // which would be an end in good order
			err = io.ErrUnexpectedEOF
		}
		return &HandshakeError{mode, err}
	}
	done()
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
	return s.l.Call(func() runtime.Result { return c.Encrypted(k) })
}

// modeChanged tells the program that the mode has changed.
func (s *session) modeChanged(mode Mode) error {
	s.k.mu.Lock()
	f := s.k.config.ModeChanged
	s.k.mu.Unlock()
	if f == nil {
		return nil
	}
	return s.l.Call(func() runtime.Result { return f(s.k, mode) })
}
