// Package testserver runs servers on loopback for tests. They end with the test.
package testserver

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
)

// Listen returns a listener on a free TCP port of 127.0.0.1.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	return listen(t, "tcp", "127.0.0.1:0")
}

// ListenUnix returns a listener on a unix socket in a folder of the test.
func ListenUnix(t testing.TB) net.Listener {
	t.Helper()
	return listen(t, "unix", filepath.Join(t.TempDir(), "s"))
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// Addr returns the address of a TCP listener.
func Addr(ln net.Listener) netip.AddrPort { return ln.Addr().(*net.TCPAddr).AddrPort() }

// Refused returns an address that refuses connections.
func Refused(t testing.TB) netip.AddrPort {
	t.Helper()
	ln := Listen(t)
	ln.Close()
	return Addr(ln)
}

// Serve calls handle for each connection of ln, on a goroutine of its own, and
// closes the connection when handle returns. At the end of the test it closes the
// listener and the connections, and waits for the calls.
func Serve(t testing.TB, ln net.Listener, handle func(net.Conn)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	ended := false
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		ended = true
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			if ended {
				c.Close()
			}
			mu.Unlock()
			wg.Go(func() {
				defer func() {
					c.Close()
					mu.Lock()
					delete(conns, c)
					mu.Unlock()
				}()
				handle(c)
			})
		}
	})
}

// ServeTCP is Serve on a free TCP port of 127.0.0.1. It returns the address.
func ServeTCP(t testing.TB, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln := Listen(t)
	Serve(t, ln, handle)
	return Addr(ln)
}

// HTTP runs a server on ln. It logs nothing unless it has an ErrorLog. At the end
// of the test it is closed; HTTP then waits for its handlers.
func HTTP(t testing.TB, ln net.Listener, server *http.Server) {
	if server.ErrorLog == nil {
		server.ErrorLog = log.New(io.Discard, "", 0)
	}
	var wg sync.WaitGroup
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		handler.ServeHTTP(w, r)
	})
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	go server.Serve(ln)
}

// Protocols returns a set of HTTP/1 and HTTP/2 without TLS.
func Protocols(h1, unencryptedH2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(h1)
	p.SetUnencryptedHTTP2(unencryptedH2)
	return p
}

// A Pipe is a listener of connections in memory, which do not buffer, for bubbles
// of package synctest.
type Pipe struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

// NewPipe returns a listener that is closed at the end of the test.
func NewPipe(t testing.TB) *Pipe {
	p := &Pipe{conns: make(chan net.Conn), done: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.done) })
	t.Cleanup(p.close)
	return p
}

// DialContext connects to the listener, whatever the address is. It is for
// runtime.Options.
func (p *Pipe) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept returns the peer of the next connection.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and DialContext.
func (p *Pipe) Close() error {
	p.close()
	return nil
}

// Addr returns an address that nothing listens on.
func (p *Pipe) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
