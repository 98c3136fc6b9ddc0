//go:build linux

package conformance

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A ledger records the lines that a server has received.
type ledger struct {
	mu    sync.Mutex
	lines []string
}

func (l *ledger) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.Fields(text)...)
}

// sorted returns the lines received so far, sorted.
func (l *ledger) sorted() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(slices.Values(l.lines))
}

// ServeHTTP records the body of a request, or the messages of a WebSocket.
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			l.add(string(body))
		}
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		_, msg, err := c.Read(r.Context())
		if err != nil {
			return
		}
		l.add(string(msg))
	}
}

// serve starts a server for each protocol until the end of the test, and returns their
// addresses.
func (l *ledger) serve(t *testing.T, own *testcert.Authority) map[string]netip.AddrPort {
	addrs := map[string]netip.AddrPort{}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	certificates := []tls.Certificate{own.Certify(testcert.Key(), time.Now().Add(-time.Hour), "127.0.0.1")}
	for _, name := range []string{"h1", "h2"} {
		ln := teststream.Must(net.Listen("tcp", "127.0.0.1:0"))
		srv := &http.Server{Handler: l, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: certificates}, Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(name == "h1")
		srv.Protocols.SetHTTP2(name == "h2")
		wg.Go(func() {
			if name == "h1" {
				srv.Serve(ln)
			} else {
				srv.ServeTLS(ln, "", "")
			}
		})
		t.Cleanup(func() { srv.Close() })
		addrs[name] = ln.Addr().(*net.TCPAddr).AddrPort()
	}
	addrs["ws"] = addrs["h1"]
	pc := teststream.Must(net.ListenPacket("udp", "127.0.0.1:0"))
	srv := &http3.Server{Handler: l, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: certificates}), Logger: slog.New(slog.DiscardHandler)}
	wg.Go(func() { srv.Serve(pc) })
	t.Cleanup(func() { srv.Close(); pc.Close() })
	addrs["h3"] = pc.LocalAddr().(*net.UDPAddr).AddrPort()
	ln := teststream.Must(net.Listen("tcp", "127.0.0.1:0"))
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				l.add(string(all))
			})
		}
	})
	t.Cleanup(func() { ln.Close() })
	addrs["raw"] = ln.Addr().(*net.TCPAddr).AddrPort()
	return addrs
}

// ledgerTypes returns a streamtype for each server.
func ledgerTypes(addrs map[string]netip.AddrPort, own *testcert.Authority) (types []*policy.StreamType) {
	for name, addr := range addrs {
		st := streamType(addr)
		st.Name = name
		st.HTTP.Method = "POST"
		switch name {
		case "h2":
			secure(own.Store())(st)
			h2(st)
		case "h3":
			secure(own.Store())(st)
			h3Of(st)
		case "ws":
			st.Protocol = policy.ProtocolWS
		case "raw":
			rawOf(st)
		}
		types = append(types, st)
	}
	return types
}

// TestAcceptedArrives checks that a server receives what Write has accepted, however soon
// Close follows, with one Conn for all messages and with one for each.
func TestAcceptedArrives(t *testing.T) {
	own := testcert.New("own")
	var got ledger
	addrs := got.serve(t, own)
	c := newContext(t, runtime.Options{}, ledgerTypes(addrs, own)...)
	var want []string
	for name := range addrs {
		send := func(n int) {
			conn := teststream.Must(c.Open(t.Context(), name))
			for range n {
				line := fmt.Sprintf("%s-%d", name, len(want))
				want = append(want, line)
				if _, err := fmt.Fprintln(conn, line, strings.Repeat(" ", 2000)); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains("ws raw", name) {
				if err := conn.CloseWrite(); err != nil {
					t.Error(err)
				}
			}
			if err := conn.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		send(300)
		for range 30 {
			send(1)
		}
	}
	slices.Sort(want)
	for deadline := time.Now().Add(time.Minute); len(got.sorted()) < len(want) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := got.sorted(); !slices.Equal(got, want) {
		t.Errorf("%d of %d messages arrived", len(got), len(want))
	}
}
