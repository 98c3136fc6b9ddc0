package http_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestClearTextH2 checks that h2 without TLS is HTTP/2, shares a connection, and cannot
// reach a server that supports only HTTP/1.1.
func TestClearTextH2(t *testing.T) {
	proto := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.Method, " ", r.Host, r.URL)
	})
	addr := serveH2C(t, proto)
	var dials atomic.Int32
	tr := &teststream.Trace{}
	_, s := newStream(t, policy.StreamType{Protocol: policy.ProtocolH2, Opportunistic: true, HTTP: &policy.HTTP{URL: "/x?y"}}, addr, tr,
		runtime.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
	for i := range 3 {
		s.Connect()
		awaitEvents(t, tr, 1+6*(i+1))
	}
	one := "HTTP/2.0 GET " + addr.String() + "/x?y"
	if tr.Body() != one+one+one || dials.Load() != 1 {
		t.Errorf("the server got %q over %d connections: %s, %v", tr.Body(), dials.Load(), tr, s.Err())
	}

	// A POST, and over a unix socket.
	ln := testserver.ListenUnix(t)
	testserver.HTTP(t, ln, &http.Server{Handler: echo, Protocols: testserver.Protocols(false, true)})
	tr, s = fetch(t, policy.StreamType{Protocol: policy.ProtocolH2, Endpoint: "+" + ln.Addr().String(), HTTP: &policy.HTTP{Method: "POST"}}, netip.AddrPort{},
		runtime.Handlers{Tx: sender("ab", "cd")}, nil)
	if tr.Body() != "abcd" {
		t.Errorf("got %q back: %s, %v", tr.Body(), tr, s.Err())
	}

	old := server{handler: proto}.start(t)
	tr, s = fetch(t, policy.StreamType{Protocol: policy.ProtocolH2}, old, runtime.Handlers{}, nil)
	tr.Want(t, "CRE POL CNG UNR ARF")
	if s.Err() == nil || !strings.Contains(s.Err().Error(), "h2 without TLS") {
		t.Errorf("Err returns %v", s.Err())
	}
}
