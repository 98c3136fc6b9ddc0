package raw

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func listen(s *transport.ServerSetup) (transport.Listener, error) {
	if s.Handler != nil {
		return nil, fmt.Errorf("%w: a handler of type %T over raw", transport.ErrUnsupported, s.Handler)
	}
	n := &listener{setup: s, sessions: make(map[*session]struct{})}
	if k, ok := s.Data(policy.ProtocolRaw).(*Socket); ok {
		n.config = k.config
	}
	if s.Verify != nil && n.config.Verify == VerifyAuto {
		n.config.Verify = s.Verify.Mode
	}
	n.none.L = &n.mu
	if joined := s.Joined(); joined != nil {
		return n.join(joined)
	}
	var err error
	if n.tls, err = s.ServerTLS(); err != nil {
		return nil, err
	}
	if n.ln, err = s.Listen(); err != nil {
		return nil, err
	}
	return n, nil
}

// join makes the listener receive the connections of another one.
func (n *listener) join(joined transport.Listener) (transport.Listener, error) {
	host, ok := joined.(*listener)
	switch {
	case !ok:
		return nil, n.setup.CannotJoin("that server is not one of raw")
	case host.host != nil:
		host = host.host
	}
	if n.setup.Stream.TLS && host.tls == nil {
		return nil, n.setup.CannotJoin("that server has no TLS, and this one has")
	}
	n.host, n.tls, n.ln = host, host.tls, host.ln
	n.ready, n.left = make(chan struct{}), make(chan struct{})
	n.leave = sync.OnceFunc(func() {
		host.mu.Lock()
		defer host.mu.Unlock()
		host.guests = slices.DeleteFunc(host.guests, func(g *listener) bool { return g == n })
		close(n.left)
	})
	host.mu.Lock()
	defer host.mu.Unlock()
	if host.closed {
		return nil, n.setup.CannotJoin("that server is closed")
	}
	host.guests = append(host.guests, n)
	return n, nil
}

// A listener accepts connections.
type listener struct {
	setup  *transport.ServerSetup
	config Config
	tls    *tls.Config // nil without TLS
	ln     net.Listener
	host   *listener     // that this one has joined, or nil
	ready  chan struct{} // closed by Serve; nil without a host
	left   chan struct{} // closed when it receives no more connections from host
	leave  func()        // closes left; mu of host must not be held

	mu       sync.Mutex
	none     sync.Cond // signals that conns is 0
	sessions map[*session]struct{}
	conns    int  // accepted connections that have not ended
	closed   bool // the port is closed
	draining bool
	guests   []*listener // that have joined; the last one receives the connections
	acceptor transport.Acceptor
}

func (n *listener) Addr() net.Addr { return n.ln.Addr() }

// Serve accepts connections until the port is closed.
func (n *listener) Serve(a transport.Acceptor) error {
	n.acceptor = a
	if n.host != nil {
		return n.visit()
	}
	defer n.dismiss()
	for {
		conn, err := n.setup.AcceptConn(n.ln)
		if err != nil {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.closed {
				return nil
			}
			return err
		}
		n.mu.Lock()
		to := n
		if len(n.guests) > 0 {
			to = n.guests[len(n.guests)-1]
		}
		n.mu.Unlock()
		to.mu.Lock()
		to.conns++
		to.mu.Unlock()
		go to.serve(conn)
	}
}

// visit implements Serve for a listener that has joined another one.
func (n *listener) visit() error {
	close(n.ready)
	<-n.left
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	return net.ErrClosed
}

// dismiss ends Serve of the guests.
func (n *listener) dismiss() {
	n.mu.Lock()
	n.closed = true
	guests := slices.Clone(n.guests)
	n.mu.Unlock()
	for _, g := range guests {
		g.leave()
	}
}

// serve serves a connection from beginning to end.
func (n *listener) serve(conn net.Conn) {
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.conns--; n.conns == 0 {
			n.none.Broadcast()
		}
	}()
	defer transport.Close(conn)
	if n.host != nil {
		select {
		case <-n.ready:
		case <-n.left:
			return
		}
	}
	l, err := n.acceptor.Accept(transport.Peer{Local: conn.LocalAddr(), Remote: conn.RemoteAddr()})
	if err != nil {
		return
	}
	k, _ := l.Data(func() any { return &Socket{config: n.config, server: n.tls} }).(*Socket)
	s := newSession(l.Context(), n.setup.Setup, l, k, conn)
	s.limit = max(n.setup.Limits.HeaderTimeout, 0)
	s.idle = n.setup.Env.Watch(0, max(n.setup.Limits.IdleTimeout, 0), false, nil, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		s.endLocked(ErrIdle)
	})
	defer s.idle.Stop()
	n.mu.Lock()
	n.sessions[s] = struct{}{}
	draining := n.draining
	n.mu.Unlock()
	if draining {
		s.closeWriting()
	}
	var first *upgrade
	if k.server != nil {
		first = &upgrade{mode: TLSServer, start: startServer}
	}
	err = s.run(first)
	n.mu.Lock()
	delete(n.sessions, s)
	n.mu.Unlock()
	l.End(ended(err))
}

// ended returns the error of a connection that has ended, or nil if the peer has
// ended it properly.
func ended(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// Shutdown closes the port and, after the data that the program has requested to
// send, the sending direction of each connection. It waits until the peers have
// closed theirs.
func (n *listener) Shutdown(ctx context.Context) error {
	n.closePort()
	n.mu.Lock()
	n.draining = true
	var all []*session
	for s := range n.sessions {
		all = append(all, s)
	}
	n.mu.Unlock()
	for _, s := range all {
		s.closeWriting()
	}
	defer context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.none.Broadcast()
	})()
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.conns > 0 && ctx.Err() == nil {
		n.none.Wait()
	}
	if n.conns > 0 {
		return ctx.Err()
	}
	return nil
}

// closeWriting closes the sending direction after the data that is requested to be
// sent.
func (s *session) closeWriting() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if !s.over {
		s.closeWrite = true
		s.wake()
	}
}

// Close closes the port.
func (n *listener) Close() error { return n.closePort() }

func (n *listener) closePort() error {
	n.mu.Lock()
	closed := n.closed
	n.closed = true
	n.mu.Unlock()
	switch {
	case closed:
		return nil
	case n.host != nil:
		n.leave()
		return nil
	}
	return n.ln.Close()
}
