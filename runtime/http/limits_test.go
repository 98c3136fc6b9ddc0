package http_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// newContext returns a context whose only streamtype is "s".
func newContext(t *testing.T, st policy.StreamType, addr netip.AddrPort, o runtime.Options) *runtime.Context {
	t.Helper()
	st.Name = "s"
	if st.Endpoint == "" {
		st.Endpoint = addr.Addr().String()
	}
	if st.Port == 0 {
		st.Port = addr.Port()
	}
	if st.HTTP == nil {
		st.HTTP = &policy.HTTP{}
	}
	return newPolicy(t, []*policy.StreamType{&st}, o)
}

// newPolicy returns a context for the streamtypes.
func newPolicy(t *testing.T, types []*policy.StreamType, o runtime.Options) *runtime.Context {
	t.Helper()
	o.Transports = []transport.Transport{sshttp.New()}
	o.Logger = slog.New(slog.DiscardHandler)
	return teststream.NewContext(t, o, types...)
}

// get makes one request and returns the body.
func get(t *testing.T, c *runtime.Context, o ...runtime.CallOption) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := c.Fetch(ctx, "s", o...)
	if err != nil {
		return "", err
	}
	return string(r.Body), nil
}

// serveUnix returns the path of the socket of a plain server.
func serveUnix(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: h}
	t.Cleanup(func() { hs.Close() })
	go hs.Serve(ln)
	return path
}

// TestUnixByURL checks that no URL leads to a unix socket.
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

// TestUnixRedirects checks that a redirect stays on the unix socket.
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

// TestUnixByMetadata checks that each socket gets its own requests.
func TestUnixByMetadata(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		ln, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		hs := &http.Server{Handler: status(200, name)}
		t.Cleanup(func() { hs.Close() })
		go hs.Serve(ln)
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

// TestH2StreamLimit checks that a request waits for a place on a connection
// however often others take it.
func TestH2StreamLimit(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Millisecond)
			io.WriteString(w, "x")
		})}
	hs.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() { hs.Close() })
	go hs.Serve(ln)
	c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2}, ln.Addr().(*net.TCPAddr).AddrPort(), runtime.Options{})
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
}

// TestH2Repeated checks that a server that hangs up on each connection, or resets
// each request, gets few of them. There may be a connection or two without a
// request on it: net/http can hand the one that was reset to the next try, when
// it is busy, and so makes one more than it uses.
func TestH2Repeated(t *testing.T) {
	for name, answer := range map[string]string{
		"at once": "",
		// SETTINGS, and RST_STREAM of stream 1 with PROTOCOL_ERROR.
		"reset": "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x01",
	} {
		var conns, requests atomic.Int32
		addr := server{conn: func(c net.Conn) {
			defer c.Close()
			conns.Add(1)
			if answer != "" {
				for buf := make([]byte, 4096); ; {
					// The headers are the first frame of that type on stream 1.
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
		start := time.Now()
		_, err := get(t, c)
		t.Logf("%s: %v, %d connections, %d requests in %v", name, err, conns.Load(), requests.Load(), time.Since(start))
		if err == nil || requests.Load() > 16 || conns.Load() > 32 {
			t.Errorf("%s: %v after %d connections, %d requests", name, err, conns.Load(), requests.Load())
		}
	}
}

// TestH2DeadConnection checks that a kept connection that has died in silence
// is not used for ever.
func TestH2DeadConnection(t *testing.T) {
	back := serveH2C(t, status(200, "x"))
	var dead atomic.Bool
	var conns atomic.Int32
	addr := server{conn: func(c net.Conn) {
		defer c.Close()
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

// TestBigHeaders checks that the headers of a response have a limit.
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

// TestStalledBody checks that a body that nobody wants is not waited for.
func TestStalledBody(t *testing.T) {
	good := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "there") })
	for head, want := range map[string]string{
		"503 x\r\nContent-Length: 100\r\n":                                                   "",
		"503 x\r\nTransfer-Encoding: chunked\r\n":                                            "",
		"302 x\r\nContent-Length: 100\r\nLocation: http://" + good.String() + "/\r\n":        "there",
		"302 x\r\nTransfer-Encoding: chunked\r\nLocation: http://" + good.String() + "/\r\n": "there",
	} {
		addr := server{conn: func(c net.Conn) {
			defer c.Close()
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 "+head+"\r\n")
			c.Read(make([]byte, 1))
		}}.start(t)
		c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AllowRedirects: true}}, addr, runtime.Options{ConnectTimeout: 2 * time.Second})
		start := time.Now()
		body, err := get(t, c)
		se, _ := errors.AsType[*sshttp.StatusError](err)
		if body != want || want == "" && (se == nil || se.Code != 503) || time.Since(start) > time.Second {
			t.Errorf("%q: %q, %v after %v", head, body, err, time.Since(start))
		}
	}
}

// TestRedirectErrors checks that an error does not tell the query of a URL.
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
				continue // would be followed
			}
			c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AllowRedirects: allow, URL: "/?${m}%zz"}, Metadata: []policy.Metadata{{Name: "m"}}}, addr, runtime.Options{})
			_, err := get(t, c, runtime.WithMetadata("m", "hunter2"))
			if !isRedirect(err) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", to, err)
			}
		}
	}
	// One whose own URL can not be parsed.
	raw := server{conn: raw("HTTP/1.1 302 x\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")}.start(t)
	c := newContext(t, policy.StreamType{HTTP: &policy.HTTP{AllowRedirects: true, URL: "/${m}"}, Metadata: []policy.Metadata{{Name: "m"}}}, raw, runtime.Options{})
	if _, err := get(t, c, runtime.WithMetadata("m", "hunter2%zz")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error is %v", err)
	}
}

// TestRetryAfterLimit checks that a server can not ask for more than a day.
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
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); c.Fetch(ctx, "s") }()
		select {
		case d := <-waits:
			if d != want {
				t.Errorf("Retry-After %s: a wait of %v, want %v", header, d, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("Retry-After %s: no wait", header)
		}
		cancel()
		<-done
	}
}

// TestHugeConnectTimeout checks that the largest limit is one.
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

// TestControlCharacters checks that a token with one is not sent, nor told.
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

// TestEndpointPort checks that metadata can not bring in a port.
func TestEndpointPort(t *testing.T) {
	addr := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	c := newContext(t, policy.StreamType{Endpoint: "http://${h}/", Metadata: []policy.Metadata{{Name: "h"}}}, addr, runtime.Options{})
	if _, err := get(t, c, runtime.WithMetadata("h", addr.String())); !errors.Is(err, runtime.ErrMetadataValue) {
		t.Error(err)
	}
}
