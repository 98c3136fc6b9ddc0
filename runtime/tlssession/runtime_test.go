package tlssession_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/h3"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestDeviceResumes checks that a device resumes its sessions after sleep, whatever the
// protocol. A streamtype with another trust store or client certificate does not use them.
func TestDeviceResumes(t *testing.T) {
	stranger := testcert.New("stranger")
	both := ca.Store()
	both.Stack = append(both.Stack, stranger.Store().Stack...)
	for name, tt := range map[string]struct {
		protocol policy.Protocol
		alpn     string
	}{
		"h1": {policy.ProtocolH1, "http/1.1"},
		"h2": {policy.ProtocolH2, "h2"},
		"h3": {policy.ProtocolH3, "h3"},
		"ws": {policy.ProtocolWS, "http/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			ln := testserver.Listen(t)
			config := ca.Server([]string{tt.alpn}, "127.0.0.1")
			cache := tlssession.NewCache(tlssession.Options{})
			(&tlssession.Sessions{Cache: cache}).Server(transport.Scope{}, config)
			resumed := make(chan bool, 1)
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				resumed <- r.TLS.DidResume
				if tt.protocol == policy.ProtocolWS {
					c, err := websocket.Accept(w, r, nil)
					if err == nil {
						c.Close(websocket.StatusNormalClosure, "")
					}
				}
			})
			addr := ln.Addr().String()
			if tt.protocol == policy.ProtocolH3 {
				addr = serveH3(t, config, handler)
			} else {
				testserver.HTTP(t, tls.NewListener(ln, config), &http.Server{TLSConfig: config, Handler: handler})
			}

			file, key := filepath.Join(t.TempDir(), "sessions"), keyData(1)
			// wake runs a device between two sleeps.
			wake := func(store *policy.TrustStore) bool {
				t.Helper()
				clients, err := tlssession.OpenClients(tlssession.ClientOptions{File: file, Key: key})
				if err != nil {
					t.Fatal(err)
				}
				st := &policy.StreamType{Name: "s", Protocol: tt.protocol, Endpoint: addr, TLS: true, TrustStore: store, Opportunistic: true, HTTP: &policy.HTTP{Method: "GET"}}
				c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{st}}, runtime.Options{
					Transports: []transport.Transport{sshttp.New(), h3.New(), ws.New()},
					Sessions:   &tlssession.Sessions{Clients: clients},
				})
				if err != nil {
					t.Fatal(err)
				}
				if tt.protocol == policy.ProtocolWS {
					conn, err := c.Open(t.Context(), "s")
					if err != nil {
						t.Fatal(err)
					}
					conn.Close()
				} else if _, err := c.Fetch(t.Context(), "s"); err != nil {
					t.Fatal(err)
				}
				teststream.Shutdown(t, c)
				if err := clients.Close(); err != nil {
					t.Error(err)
				}
				return <-resumed
			}
			got := fmt.Sprint(wake(ca.Store()), wake(ca.Store()), wake(both), wake(both), wake(ca.Store()))
			if want := "false true false true true"; got != want {
				t.Errorf("resumed %s, want %s", got, want)
			}
		})
	}
}

// TestClientsByPort checks that a session belongs to a host and a port: another
// server of the same host gets a full handshake, even if it could resume.
func TestClientsByPort(t *testing.T) {
	for name, tt := range map[string]struct {
		protocol policy.Protocol
		alpn     string
	}{
		"h1":  {policy.ProtocolH1, "http/1.1"},
		"h2":  {policy.ProtocolH2, "h2"},
		"h3":  {policy.ProtocolH3, "h3"},
		"ws":  {policy.ProtocolWS, "http/1.1"},
		"raw": {policy.ProtocolRaw, "http/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			shared := ca.Server([]string{tt.alpn}, "127.0.0.1")
			(&tlssession.Sessions{Cache: tlssession.NewCache(tlssession.Options{})}).Server(transport.Scope{}, shared)
			resumed := make(chan bool, 1)
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { resumed <- r.TLS.DidResume })
			var types []*policy.StreamType
			for _, name := range []string{"a", "b"} {
				ln, config := testserver.Listen(t), shared.Clone()
				addr := ln.Addr().String()
				if tt.protocol == policy.ProtocolH3 {
					addr = serveH3(t, config, handler)
				} else {
					testserver.HTTP(t, tls.NewListener(ln, config), &http.Server{TLSConfig: config, Handler: handler})
				}
				types = append(types, &policy.StreamType{Name: name, Protocol: tt.protocol, Endpoint: addr, TLS: true, TrustStore: ca.Store(),
					Opportunistic: true, HTTP: &policy.HTTP{Method: "GET"}})
			}
			clients := tlssession.NewClients(10)
			visit := func(name string) bool {
				c, err := runtime.NewContext(&policy.Policy{StreamTypes: types}, runtime.Options{
					Transports: []transport.Transport{sshttp.New(), h3.New(), ws.New(), raw.New(raw.TLS)},
					Sessions:   &tlssession.Sessions{Clients: clients},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer teststream.Shutdown(t, c)
				switch tt.protocol {
				case policy.ProtocolRaw:
					conn, err := c.Open(t.Context(), name)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
					io.ReadAll(conn)
				case policy.ProtocolWS:
					c.Open(t.Context(), name) // the server does not upgrade
				default:
					if _, err := c.Fetch(t.Context(), name); err != nil {
						t.Fatal(err)
					}
				}
				return <-resumed
			}
			if got := fmt.Sprint(visit("a"), visit("b"), visit("a"), visit("b")); got != "false false true true" {
				t.Errorf("resumed %s", got)
			}
		})
	}
}

// serveH3 starts a server of HTTP/3, and returns its address.
func serveH3(t *testing.T, config *tls.Config, h http.Handler) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(config), Logger: slog.New(slog.DiscardHandler)}
	done := make(chan struct{})
	go func() { server.Serve(conn); close(done) }()
	t.Cleanup(func() {
		server.Close()
		conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

// TestServersResume checks that servers resume the sessions of any client, across contexts
// with the same Sessions, but not those of another streamtype.
func TestServersResume(t *testing.T) {
	cert := ca.Certify(testcert.Key(), time.Now().Add(-time.Hour), "localhost")
	key := testcert.KeyDER(cert)
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolRaw} {
		t.Run(fmt.Sprint(protocol), func(t *testing.T) {
			sessions := &tlssession.Sessions{Cache: tlssession.NewCache(tlssession.Options{})}
			listen := func(name string) string {
				st := &policy.StreamType{Name: name, Protocol: protocol, Server: true, Endpoint: "127.0.0.1", TLS: true, HTTP: &policy.HTTP{},
					ServerCert: &policy.Cert{Name: "cert", DER: string(cert.Certificate[0])}, ServerKey: &policy.Cert{Name: "key", DER: string(key)}}
				c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server), raw.New(raw.TLS, raw.Server)}, Sessions: sessions}, st)
				s, err := c.NewStream(name, runtime.Handlers{})
				if err != nil {
					t.Fatal(err)
				}
				return s.Addr().String()
			}
			one, two, other := listen("a"), listen("a"), listen("b")
			client := clientConfig(tls.VersionTLS12) // the ticket comes with the handshake
			for _, tt := range []struct {
				addr string
				want bool
			}{{one, false}, {one, true}, {two, true}, {other, false}, {other, true}, {one, false}} {
				conn, err := tls.Dial("tcp", tt.addr, client)
				if err != nil {
					t.Fatal(err)
				}
				if got := conn.ConnectionState().DidResume; got != tt.want {
					t.Errorf("%+v: resumed %v", tt, got)
				}
				conn.Close()
			}
		})
	}
}
