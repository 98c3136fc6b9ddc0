package testserver

import (
	"context"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
)

// A Network is a network within the process, for bubbles of package synctest. It
// connects dialers to listeners. The zero value is ready to use. Its methods are
// safe for concurrent use.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener // by address
}

// Listen returns a listener. address is any text, such as "host:80".
func (n *Network) Listen(address string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{address: address, conns: make(chan net.Conn), done: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = make(map[string]*listener)
	}
	n.listeners[address] = l
	return l
}

// DialContext connects to a listener, as net.Dialer.DialContext does. Without one the
// connection is refused. Writes to the connection block until the other end reads.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Serve runs an HTTP server for h1 and h2 without TLS; see HTTP.
func (n *Network) Serve(t testing.TB, address string, h http.HandlerFunc) {
	t.Helper()
	HTTP(t, n.Listen(address), &http.Server{Handler: h, Protocols: Protocols(true, true)})
}

type listener struct {
	address string
	conns   chan net.Conn
	once    sync.Once
	done    chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.address) }

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
