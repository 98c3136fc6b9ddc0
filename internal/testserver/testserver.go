// Package testserver runs servers for tests, on loopback or on a network within the
// process. They end with the test.
package testserver

import (
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

// Addr returns the address of a listener, which must be an IP address and a port.
func Addr(ln net.Listener) netip.AddrPort { return netip.MustParseAddrPort(ln.Addr().String()) }

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

// HTTP runs a server on ln. It logs nothing unless it has an ErrorLog. At the end of
// the test it closes the server and waits for the handlers.
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
	wg.Go(func() { server.Serve(ln) })
}

// Protocols returns a set of HTTP/1 and HTTP/2 without TLS.
func Protocols(h1, unencryptedH2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(h1)
	p.SetUnencryptedHTTP2(unencryptedH2)
	return p
}
