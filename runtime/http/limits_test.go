package http_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestUnixByURL checks that a URL cannot name a unix socket.
func TestUnixByURL(t *testing.T) {
	path := serveUnix(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "local") })
	for _, host := range []string{"+", "+" + hex.EncodeToString([]byte(path))} {
		to := "http://" + host + "/x"
		addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(302)
		})
		c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AllowRedirects: true}}, addr, runtime.Options{})
		if body, err := get(t, c); !isRedirect(err) {
			t.Errorf("redirect to %s: %q, %v", to, body, err)
		}
		for _, proxy := range []string{"", "127.0.0.1:1"} {
			c = newContext(t, policy.StreamType{Endpoint: "${e}", Port: 80, SOCKS5Proxy: proxy, Metadata: []policy.Metadata{{Name: "e"}}}, addr, runtime.Options{})
			if body, err := get(t, c, runtime.WithMetadata("e", to)); !errors.Is(err, transport.ErrEndpoint) {
				t.Errorf("endpoint %s, proxy %q: %q, %v", to, proxy, body, err)
			}
		}
	}
}

// TestUnixRedirects checks that a redirect cannot leave the unix socket.
func TestUnixRedirects(t *testing.T) {
	outside := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "outside") })
	for to, want := range map[string]string{
		"/end": "local /end", "end?q": "local /end?q",
		"//" + outside.String() + "/end": "", "http://" + outside.String() + "/end": "", "http://localhost/end": "", "https:///end": "",
	} {
		path := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/end" {
				fmt.Fprint(w, "local ", r.URL)
				return
			}
			w.Header().Set("Location", to)
			w.WriteHeader(302)
		})
		c := newContext(t, policy.StreamType{Endpoint: "+" + path, HTTP: &policy.HTTP{AllowRedirects: true}}, netip.AddrPort{}, runtime.Options{})
		if body, err := get(t, c); body != want || want == "" && !isRedirect(err) {
			t.Errorf("redirect to %s: %q, %v", to, body, err)
		}
	}
}

// TestUnixByMetadata checks that requests reach the socket named by metadata.
func TestUnixByMetadata(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		ln, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		testserver.HTTP(t, ln, &http.Server{Handler: status(200, name)})
	}
	c := newContext(t, policy.StreamType{Endpoint: "+" + dir + "/${m}", Metadata: []policy.Metadata{{Name: "m"}}}, netip.AddrPort{}, runtime.Options{})
	var wg sync.WaitGroup
	for i := range 40 {
		name := "ab"[i%2 : i%2+1]
		wg.Go(func() {
			if body, err := get(t, c, runtime.WithMetadata("m", name)); body != name {
				t.Errorf("socket %s answered %q, %v", name, body, err)
			}
		})
	}
	wg.Wait()
}

// TestH2StreamLimit checks that a waiting request gets its turn on a connection, however
// often others overtake it.
func TestH2StreamLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network testserver.Network
		ln := network.Listen("127.0.0.1:80")
		testserver.HTTP(t, ln, &http.Server{Protocols: testserver.Protocols(false, true), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(5 * time.Millisecond)
				io.WriteString(w, "x")
			})})
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2}, testserver.Addr(ln), runtime.Options{DialContext: network.DialContext})
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				for range 10 {
					if _, err := get(t, c); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestH2StreamLimitConnections checks that requests beyond the stream limit do not make
// more connections than there are callers.
func TestH2StreamLimitConnections(t *testing.T) {
	const callers, each = 50, 10
	var conns atomic.Int32
	ln := testserver.Listen(t)
	testserver.HTTP(t, ln, &http.Server{Protocols: testserver.Protocols(false, true), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1},
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				conns.Add(1)
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })})
	c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2}, testserver.Addr(ln), runtime.Options{})
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				if _, err := get(t, c); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d connections", conns.Load())
	if n := conns.Load(); n > callers {
		t.Errorf("%d connections for %d callers", n, callers)
	}
}

// TestFetchReturns checks that Fetch returns when its context is done, whatever a server or
// dialer does.
func TestFetchReturns(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"silent": func(c net.Conn) { io.Copy(io.Discard, c) },
		"no body": func(c net.Conn) {
			go io.Copy(io.Discard, c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
			c.Read(make([]byte, 1))
		},
		"dialer": nil,
	} {
		for _, protocol := range protocols {
			synctest.Test(t, func(t *testing.T) {
				hang := make(chan struct{})
				defer close(hang)
				var network testserver.Network
				ln := network.Listen("127.0.0.1:80")
				o := runtime.Options{DialContext: network.DialContext}
				if serve == nil {
					o.DialContext = func(context.Context, string, string) (net.Conn, error) {
						<-hang
						return nil, net.ErrClosed
					}
				} else {
					testserver.Serve(t, ln, serve)
				}
				c := newContext(t, policy.StreamType{Protocol: protocol}, testserver.Addr(ln), o)
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				start := time.Now()
				if _, err := c.Fetch(ctx, "s"); err == nil || time.Since(start) > 50*time.Millisecond {
					t.Errorf("%v, %s: %v after %v", protocol, name, err, time.Since(start))
				}
			})
		}
	}
}

// TestH2Repeated checks the number of requests to a server that closes each
// connection, or resets each request.
func TestH2Repeated(t *testing.T) {
	for name, answer := range map[string]string{
		"closed": "",
		// SETTINGS, and RST_STREAM of stream 1 with PROTOCOL_ERROR.
		"reset": "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x01",
	} {
		var conns, requests atomic.Int32
		addr := server{conn: func(c net.Conn) {
			conns.Add(1)
			if answer != "" {
				for buf := make([]byte, 4096); ; {
					// The header of a HEADERS frame of stream 1.
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if strings.Contains(string(buf[:n]), "\x01\x05\x00\x00\x00\x01") {
						requests.Add(1)
						break
					}
				}
				io.WriteString(c, answer)
				io.Copy(io.Discard, c)
			}
		}}.start(t)
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2}, addr, runtime.Options{ConnectTimeout: 2 * time.Second})
		_, err := get(t, c)
		t.Logf("%s: %v, %d connections, %d requests", name, err, conns.Load(), requests.Load())
		if err == nil || requests.Load() > 16 || conns.Load() > 32 {
			t.Errorf("%s: %v after %d connections, %d requests", name, err, conns.Load(), requests.Load())
		}
	}
}

// TestH2DeadConnection checks that an idle connection whose peer has gone is replaced.
func TestH2DeadConnection(t *testing.T) {
	back := serveH2C(t, status(200, "x"))
	var dead atomic.Bool
	var conns atomic.Int32
	addr := server{conn: func(c net.Conn) {
		first := conns.Add(1) == 1
		b, err := net.Dial("tcp", back.String())
		if err != nil {
			return
		}
		defer b.Close()
		pass := func(to, from net.Conn) {
			for buf := make([]byte, 4096); ; {
				n, err := from.Read(buf)
				if err != nil {
					return
				}
				if !first || !dead.Load() {
					to.Write(buf[:n])
				}
			}
		}
		go pass(c, b)
		pass(b, c)
	}}.start(t)
	c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2, Retry: &policy.Retry{Backoff: []time.Duration{10 * time.Millisecond}, Conceal: 4}},
		addr, runtime.Options{ConnectTimeout: 300 * time.Millisecond})
	for range 2 {
		if _, err := get(t, c); err != nil {
			t.Errorf("dead %v: %v, %d connections", dead.Load(), err, conns.Load())
		}
		dead.Store(true)
	}
}

// TestBigHeaders checks the limit of the size of response headers.
func TestBigHeaders(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 100 << 10
		if r.URL.Path == "/big" {
			n = 300 << 10
		}
		w.Header().Set("X-B", strings.Repeat("a", n))
	})
	for protocol, addr := range map[policy.Protocol]netip.AddrPort{policy.ProtocolH1: serve(t, h.ServeHTTP), policy.ProtocolH2: serveH2C(t, h)} {
		for url, ok := range map[string]bool{"/": true, "/big": false} {
			c := newContext(t, policy.StreamType{Protocol: protocol, HTTP: &policy.HTTP{URL: url}}, addr, runtime.Options{})
			if _, err := get(t, c); (err == nil) != ok {
				t.Errorf("%v, %s: %v", protocol, url, err)
			}
		}
	}
}

// TestStalledBody checks that an unneeded body is not waited for.
func TestStalledBody(t *testing.T) {
	for head, want := range map[string]string{
		"503 x\r\nContent-Length: 100\r\n":                                       "",
		"503 x\r\nTransfer-Encoding: chunked\r\n":                                "",
		"302 x\r\nContent-Length: 100\r\nLocation: http://good.test/\r\n":        "there",
		"302 x\r\nTransfer-Encoding: chunked\r\nLocation: http://good.test/\r\n": "there",
	} {
		synctest.Test(t, func(t *testing.T) {
			var network testserver.Network
			network.Serve(t, "good.test:80", status(200, "there").ServeHTTP)
			ln := network.Listen("127.0.0.1:80")
			testserver.Serve(t, ln, func(c net.Conn) {
				c.Read(make([]byte, 4096))
				io.WriteString(c, "HTTP/1.1 "+head+"\r\n")
				c.Read(make([]byte, 1))
			})
			c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AllowRedirects: true}}, testserver.Addr(ln), runtime.Options{DialContext: network.DialContext})
			start := time.Now()
			body, err := get(t, c)
			se, _ := errors.AsType[*sshttp.StatusError](err)
			if body != want || want == "" && (se == nil || se.Code != 503) || time.Since(start) > 100*time.Millisecond {
				t.Errorf("%q: %q, %v after %v", head, body, err, time.Since(start))
			}
		})
	}
}

// TestRedirectErrors checks that an error does not contain the query of a URL.
func TestRedirectErrors(t *testing.T) {
	for to, want := range map[string]string{
		"https://u:hunter2@idp.test/cb?code=hunter2#hunter2": `"https://idp.test/cb"`,
		"https://idp.test/%zz?hunter2":                       "(302) not",
		"mailto:hunter2":                                     "(302) not",
	} {
		addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(302)
		})
		for _, allow := range []bool{false, true} {
			if allow && strings.HasPrefix(to, "https://u") {
				continue // it is followed
			}
			c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AllowRedirects: allow, URL: "/?${m}%zz"}, Metadata: []policy.Metadata{{Name: "m"}}}, addr, runtime.Options{})
			_, err := get(t, c, runtime.WithMetadata("m", "hunter2"))
			if !isRedirect(err) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", to, err)
			}
		}
	}
	// The URL of the request cannot be parsed.
	addr := server{conn: raw("HTTP/1.1 302 x\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")}.start(t)
	c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AllowRedirects: true, URL: "/${m}"}, Metadata: []policy.Metadata{{Name: "m"}}}, addr, runtime.Options{})
	if _, err := get(t, c, runtime.WithMetadata("m", "hunter2%zz")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error of an unparsable URL is %v", err)
	}
}

// TestRetryAfterLimit checks that a server cannot demand a wait of more than a day.
func TestRetryAfterLimit(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"7200": 2 * time.Hour, "86401": 24 * time.Hour, "4294967295": 24 * time.Hour, "99999999999999999999999": 24 * time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT": 24 * time.Hour,
	} {
		addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(503)
		})
		waits := make(chan time.Duration, 1)
		c := newContext(t, policy.StreamType{Retry: &policy.Retry{Conceal: 1}}, addr, runtime.Options{Hooks: runtime.Hooks{
			Wait: func(_ context.Context, _ *runtime.Stream, d time.Duration) { waits <- d }}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Fetch(ctx, "s")
		}()
		if d := <-waits; d != want {
			t.Errorf("Retry-After %s: a wait of %v, want %v", header, d, want)
		}
		cancel()
		<-done
	}
}

// TestHugeConnectTimeout checks that the largest limit does not overflow.
func TestHugeConnectTimeout(t *testing.T) {
	own := testcert.New("own")
	addr := server{handler: status(200, "x"), tls: own.Server([]string{"h2", "http/1.1"}, "127.0.0.1")}.start(t)
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2} {
		c := newContext(t, policy.StreamType{Protocol: protocol, TLS: true, TrustStore: own.Store()}, addr, runtime.Options{ConnectTimeout: math.MaxInt64})
		if _, err := get(t, c); err != nil {
			t.Errorf("%v: %v", protocol, err)
		}
	}
}

// TestControlCharacters checks that a token with a control character is neither sent
// nor part of the error.
func TestControlCharacters(t *testing.T) {
	addr := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for _, token := range []string{"hunter2\x01", "hunter2\x7f"} {
		c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AuthHeader: "authorization:"}}, addr, runtime.Options{
			Credentials: credentials.Funcs{BlobFunc: func(context.Context, policy.Blob, int) (string, error) { return token, nil }}})
		if _, err := get(t, c); !errors.Is(err, transport.ErrBadCredentials) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", token, err)
		}
	}
}

// TestEndpointPort checks that metadata in the host cannot set a port.
func TestEndpointPort(t *testing.T) {
	addr := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	c := newContext(t, policy.StreamType{Endpoint: "http://${h}/", Metadata: []policy.Metadata{{Name: "h"}}}, addr, runtime.Options{})
	if _, err := get(t, c, runtime.WithMetadata("h", addr.String())); !errors.Is(err, runtime.ErrMetadataValue) {
		t.Error(err)
	}
}
