package faulttest

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestUpstream puts a fault in front of real servers, which have certificates of the
// policy's own authority.
func TestUpstream(t *testing.T) {
	own := testcert.New("own")
	retry := &policy.Retry{Backoff: []time.Duration{10 * time.Millisecond}, Conceal: 1}
	st := func(name string, protocol policy.Protocol) *policy.StreamType {
		return &policy.StreamType{Name: name, Protocol: protocol, Endpoint: "device.example.com", Port: 443, TLS: true,
			TrustStore: own.Store(), Retry: retry, Opportunistic: true, HTTP: &policy.HTTP{Method: "GET", URL: "x"}}
	}
	p := &policy.Policy{StreamTypes: []*policy.StreamType{st("h1", policy.ProtocolH1), st("h2", policy.ProtocolH2), st("raw", policy.ProtocolRaw)}}
	seen := make(chan string, 10)
	web := testserver.Listen(t)
	config := own.Server([]string{"h2", "http/1.1"}, "device.example.com")
	testserver.HTTP(t, tls.NewListener(web, config), &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Host
		io.WriteString(w, "from the upstream")
	})})
	raw := testserver.Listen(t)
	testserver.Serve(t, raw, func(c net.Conn) {
		s := tls.Server(c, own.Server(nil, "device.example.com"))
		if s.Handshake() == nil {
			seen <- "device.example.com"
			io.WriteString(s, "hello")
			io.Copy(io.Discard, s)
		}
	})
	for _, tt := range []struct {
		stream, upstream string
		fault            *Fault
		reached          bool
	}{
		{"h1", web.Addr().String(), Slice, true},
		{"h2", web.Addr().String(), Slice, true},
		{"raw", raw.Addr().String(), Slice, true},
		{"h1", web.Addr().String(), TLSRevoked, true},
		{"h1", web.Addr().String(), TLSExpired, false},
	} {
		r, err := Run(t.Context(), p, tt.stream, tt.fault, Options{Transports: transports, Upstream: tt.upstream})
		if err != nil {
			t.Fatal(err)
		}
		if !r.OK {
			t.Errorf("%s of %s: %s\n%s", tt.fault.Name, tt.stream, r.Problem, timeline(r))
		}
		select {
		case host := <-seen:
			if !tt.reached || host != "device.example.com" {
				t.Errorf("%s of %s: the upstream was asked for %q", tt.fault.Name, tt.stream, host)
			}
		default:
			if tt.reached {
				t.Errorf("%s of %s: the upstream was not reached", tt.fault.Name, tt.stream)
			}
		}
	}
}
