package http_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// serveH2C returns the address of a server that speaks h2 without TLS only.
func serveH2C(t *testing.T, h http.Handler) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	startH2C(t, ln, h)
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func startH2C(t *testing.T, ln net.Listener, h http.Handler) {
	hs := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	hs.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() { hs.Close() })
	go hs.Serve(ln)
}

// TestClearTextH2 checks h2 without TLS: that it is h2, that a connection is
// shared, and that a server that speaks HTTP/1.1 only is unreachable.
func TestClearTextH2(t *testing.T) {
	proto := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.Method, " ", r.Host, r.URL)
	})
	addr := serveH2C(t, proto)
	var dials atomic.Int32
	tr := &trace{}
	_, s := newStream(t, policy.StreamType{Protocol: policy.ProtocolH2, Opportunistic: true, HTTP: &policy.HTTP{URL: "/x?y"}}, addr, tr,
		runtime.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
	for i := range 3 {
		s.Connect()
		tr.await(t, 1+6*(i+1))
	}
	one := "HTTP/2.0 GET " + addr.String() + "/x?y"
	if string(tr.body) != one+one+one || dials.Load() != 1 {
		t.Errorf("the server saw %q over %d connections: %s, %v", tr.body, dials.Load(), tr, s.Err())
	}

	// A POST, and over a unix socket.
	name := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	startH2C(t, ln, echo)
	tr, s = fetch(t, policy.StreamType{Protocol: policy.ProtocolH2, Endpoint: "+" + name, HTTP: &policy.HTTP{Method: "POST"}}, netip.AddrPort{},
		runtime.Handlers{Tx: sender("ab", "cd")}, nil)
	if string(tr.body) != "abcd" {
		t.Errorf("got %q back: %s, %v", tr.body, tr, s.Err())
	}

	old := server{handler: proto}.start(t)
	tr, s = fetch(t, policy.StreamType{Protocol: policy.ProtocolH2}, old, runtime.Handlers{}, nil)
	want(t, tr, "CRE POL CNG UNR ARF")
	if s.Err() == nil || !strings.Contains(s.Err().Error(), "h2 without TLS") {
		t.Errorf("the cause is %v", s.Err())
	}
}
