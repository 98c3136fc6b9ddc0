package ws_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestHandshake checks the bytes of handshakes.
func TestHandshake(t *testing.T) {
	var mu sync.Mutex
	var request string
	addr := testserver.ServeTCP(t, func(c net.Conn) {
		buf := make([]byte, 8192)
		n, _ := c.Read(buf)
		mu.Lock()
		request = string(buf[:n])
		mu.Unlock()
	})
	creds := new(credentials.Memory)
	creds.SetBlob(policy.BlobAuth, 0, "dXNlcjpwYXNz")
	creds.SetBlob(policy.BlobDeviceSerial, 0, "serial")
	items := []policy.Metadata{{Name: "a"}, {Name: "b", Header: "x-b:"}, {Name: "auth", Header: "Authorization:"},
		{Name: "h", Header: "host:"}, {Name: "o", Header: "Origin"}, {Name: "p", Header: "sec-websocket-protocol:"},
		{Name: "up", Header: "upgrade:"}, {Name: "len", Header: "content-length:"}}
	host := "Host: " + addr.String() + "\r\n"
	const upgrade = "Connection: Upgrade\r\n"
	const key = "Sec-Websocket-Key: KEY\r\n"
	const last = "Sec-Websocket-Version: 13\r\nUpgrade: websocket\r\n"
	for _, tt := range []struct {
		name     string
		endpoint string
		h        policy.HTTP
		set      map[string]string
		deflate  bool
		want     string // "" means that nothing is sent
	}{
		{name: "plain", want: "GET / HTTP/1.1\r\n" + host + upgrade + key + last + "\r\n"},
		{name: "method and form have no effect", h: policy.HTTP{Method: "POST", WWWFormURLEncoded: true},
			want: "GET / HTTP/1.1\r\n" + host + upgrade + key + last + "\r\n"},
		{name: "metadata in the URL", h: policy.HTTP{URL: "chat/${a}?x=${a}"}, set: map[string]string{"a": "b c"},
			want: "GET /chat/b%20c?x=b%20c HTTP/1.1\r\n" + host + upgrade + key + last + "\r\n"},
		{name: "metadata in headers", set: map[string]string{"b": "1", "auth": "Basic dTpw", "o": "https://example.test"},
			want: "GET / HTTP/1.1\r\n" + host + "Authorization: Basic dTpw\r\n" + upgrade + "Origin: https://example.test\r\n" + key + last + "X-B: 1\r\n\r\n"},
		{name: "host", set: map[string]string{"h": "other.test"}, want: "GET / HTTP/1.1\r\nHost: other.test\r\n" + upgrade + key + last + "\r\n"},
		{name: "subprotocols", h: policy.HTTP{WSSubprotocol: "chat, v2.chat"},
			want: "GET / HTTP/1.1\r\n" + host + upgrade + key + "Sec-Websocket-Protocol: chat,v2.chat\r\n" + last + "\r\n"},
		{name: "credentials", h: policy.HTTP{AuthHeader: "authorization:", AuthPreamble: "Basic ", DSNHeader: "dsn:"},
			want: "GET / HTTP/1.1\r\n" + host + "Authorization: Basic dXNlcjpwYXNz\r\n" + upgrade + "Dsn: serial\r\n" + key + last + "\r\n"},
		{name: "deflate", deflate: true, want: "GET / HTTP/1.1\r\n" + host + upgrade +
			"Sec-Websocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n" + key + last + "\r\n"},
		{name: "endpoint is a URL", endpoint: "ws://" + addr.String() + "/from?endpoint", h: policy.HTTP{URL: "unused"},
			want: "GET /from?endpoint HTTP/1.1\r\n" + host + upgrade + key + last + "\r\n"},
		{name: "a header of the handshake", set: map[string]string{"p": "mine"}},
		{name: "upgrade", set: map[string]string{"up": "mine"}},
		{name: "a length", set: map[string]string{"len": "1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request = ""
			tr := newTrace(teststream.Actions{"CRE": func(s *runtime.Stream) policy.Result {
				for k, v := range tt.set {
					if err := s.SetMetadata(k, v); err != nil {
						t.Error(err)
					}
				}
				return teststream.RequestTx(s)
			}})
			o := runtime.Options{Credentials: creds}
			if tt.deflate {
				o.Transports = []transport.Transport{ws.New(ws.WithDeflate())}
			}
			_, s := newStream(t, policy.StreamType{Opportunistic: true, Endpoint: tt.endpoint, HTTP: &tt.h, Metadata: items}, addr, tr, o)
			tr.AwaitEnd(t, "ARF")
			mu.Lock()
			defer mu.Unlock()
			got := request
			if before, after, ok := strings.Cut(got, "Sec-Websocket-Key: "); ok {
				_, after, _ = strings.Cut(after, "\r\n")
				got = before + key + after
			}
			if got != tt.want {
				t.Errorf("\n got %q\nwant %q", got, tt.want)
			}
			if _, ok := errors.AsType[*ws.HeaderError](s.Err()); ok != (tt.want == "") {
				t.Errorf("Err returns %v", s.Err())
			}
		})
	}
}

// TestRefused checks streamtypes that Prepare rejects.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		st   policy.StreamType
		want string
	}{
		{policy.StreamType{HTTP: &policy.HTTP{WSSubprotocol: "no name"}}, "ws_subprotocol"},
		{policy.StreamType{HTTP: &policy.HTTP{WSSubprotocol: "a,,b"}}, "ws_subprotocol"},
		{policy.StreamType{HTTP: &policy.HTTP{RespMap: []policy.StatusState{{Status: 404, State: 11}}}}, "http_resp_map"},
		{policy.StreamType{HTTP: &policy.HTTP{AuthHeader: "sec-websocket-key:"}}, "http_auth_header"},
	} {
		c := newContext(t, tt.st, netip.MustParseAddrPort("127.0.0.1:1"), runtime.Options{Credentials: new(credentials.Memory)})
		_, err := c.NewStream("s", runtime.Handlers{})
		if !errors.Is(err, transport.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.want, err)
		}
	}
}

// TestResponseHeaders checks that metadata receives headers of the response.
func TestResponseHeaders(t *testing.T) {
	addr := testserver.ServeTCP(t, func(c net.Conn) { upgrade(c, "X-Session: 42\r\n", "\x88\x00") })
	c := newContext(t, policy.StreamType{Opportunistic: true, Metadata: []policy.Metadata{{Name: "session", Header: "x-session:"}}}, addr, runtime.Options{})
	conn, err := c.Open(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if v, err := conn.Metadata("session"); v != "42" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}

// TestRedirect checks that credentials are not sent to another server.
func TestRedirect(t *testing.T) {
	var mu sync.Mutex
	var requests []string
	record := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, fmt.Sprintf("%s %s %s", r.URL, r.Header.Get("Authorization"), r.Header.Get("X-B")))
	}
	own := testcert.New("own")
	far := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		record(r)
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.Close(4001, "far")
		}
	})
	secure := serve(t, own.Server(nil, "127.0.0.1"), func(w http.ResponseWriter, r *http.Request) {
		record(r)
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.Close(4002, "secure")
		}
	})
	addr := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		record(r)
		switch r.URL.Path {
		case "/far":
			http.Redirect(w, r, "ws://"+far.String()+"/there", http.StatusFound)
		case "/secure":
			http.Redirect(w, r, "wss://"+secure.String()+"/there", http.StatusPermanentRedirect)
		case "/near":
			http.Redirect(w, r, "/here", http.StatusTemporaryRedirect)
		case "/mail":
			http.Redirect(w, r, "mailto:x", http.StatusFound)
		default:
			if c, err := websocket.Accept(w, r, nil); err == nil {
				c.Close(4000, "near")
			}
		}
	})
	creds := new(credentials.Memory)
	creds.SetBlob(policy.BlobAuth, 0, "secret")
	for _, tt := range []struct {
		url  string
		code int // 0 means that the redirect fails
		want string
	}{
		{"near", 4000, "/near secret b|/here secret b"},
		{"far", 4001, "/far secret b|/there  b"},
		{"secure", 4002, "/secure secret b|/there  b"},
		{"mail", 0, "/mail secret b"},
	} {
		t.Run(tt.url, func(t *testing.T) {
			requests = nil
			tr := newTrace(teststream.Actions{"CRE": func(s *runtime.Stream) policy.Result {
				s.SetMetadata("b", "b")
				return teststream.RequestTx(s)
			}})
			_, s := newStream(t, policy.StreamType{Opportunistic: true, TrustStore: own.Store(), Metadata: []policy.Metadata{{Name: "b", Header: "x-b:"}},
				HTTP: &policy.HTTP{URL: tt.url, AllowRedirects: true, AuthHeader: "authorization:"}}, addr, tr, runtime.Options{Credentials: creds})
			tr.AwaitEnd(t, "DIS", "ARF")
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(requests, "|"); got != tt.want {
				t.Errorf("the servers got %q, want %q", got, tt.want)
			}
			if e, ok := errors.AsType[*ws.CloseError](s.Err()); tt.code != 0 && (!ok || e.Code != tt.code) {
				t.Errorf("%v", s.Err())
			}
			if _, ok := errors.AsType[*ws.RedirectError](s.Err()); ok != (tt.code == 0) {
				t.Errorf("%v", s.Err())
			}
		})
	}
}

// TestUnix checks unix sockets, with and without TLS.
func TestUnix(t *testing.T) {
	own := testcert.New("own")
	for name, endpoint := range map[string]string{
		"path": filepath.Join(t.TempDir(), "s"), "abstract": "@sspolicy-ws-" + strings.ReplaceAll(t.TempDir(), "/", "-"),
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", secure), func(t *testing.T) {
				ln, err := net.Listen("unix", endpoint)
				if err != nil {
					t.Fatal(err)
				}
				config := own.Server([]string{"http/1.1"}, "localhost")
				if !secure {
					config = nil
				}
				serveOn(t, ln, config, accept(echo))
				c := newContext(t, policy.StreamType{Endpoint: "+" + endpoint, TLS: secure, TrustStore: own.Store()}, netip.AddrPort{}, runtime.Options{})
				if r, err := c.Fetch(t.Context(), "s", runtime.WithBody([]byte("x"))); err != nil || string(r.Body) != "x" {
					t.Errorf("%v, %v", r, err)
				}
			})
		}
	}
}

// TestSOCKS5 checks that a stream uses the proxy of the policy.
func TestSOCKS5(t *testing.T) {
	server := serveWS(t, nil, echo)
	proxy := testserver.ServeTCP(t, func(c net.Conn) {
		buf := make([]byte, 300)
		io.ReadFull(c, buf[:2])
		io.ReadFull(c, buf[2:2+buf[1]])
		c.Write([]byte{5, 0})
		io.ReadFull(c, buf[:5]) // a request with a name, RFC 1928 section 4
		io.ReadFull(c, buf[5:5+buf[4]+2])
		if string(buf[:4]) != "\x05\x01\x00\x03" || string(buf[5:5+buf[4]]) != "nowhere.test" {
			return
		}
		out, err := net.Dial("tcp", server.String())
		if err != nil {
			return
		}
		defer out.Close()
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go func() { io.Copy(out, c); out.Close() }()
		io.Copy(c, out)
	})
	c := newContext(t, policy.StreamType{Endpoint: "nowhere.test", Port: 80, SOCKS5Proxy: proxy.String()}, proxy, runtime.Options{})
	if r, err := c.Fetch(t.Context(), "s", runtime.WithBody([]byte("x"))); err != nil || string(r.Body) != "x" {
		t.Errorf("%v, %v", r, err)
	}
}

// TestCookies checks that handshakes send cookies and keep those of their responses
// if the policy says http_cookies, and not otherwise.
func TestCookies(t *testing.T) {
	requests := make(chan string, 10)
	addr := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		requests <- r.URL.Path + " " + r.Header.Get("Cookie")
		w.Header().Set("Set-Cookie", strings.Trim(r.URL.Path, "/")+"=1; Path=/")
		if r.URL.Path == "/from" {
			http.Redirect(w, r, "/to", http.StatusFound)
			return
		}
		http.Error(w, "no", http.StatusForbidden)
	})
	jar := cookies.New()
	for _, tt := range []struct {
		keep bool
		want []string
	}{
		{true, []string{"/from ", "/to from=1"}},
		{true, []string{"/from from=1; to=1", "/to from=1; to=1"}},
		{false, []string{"/from ", "/to "}},
	} {
		tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
		newStream(t, policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{URL: "/from", Cookies: tt.keep, AllowRedirects: true}},
			addr, tr, runtime.Options{Cookies: jar})
		tr.AwaitEnd(t, "ARF")
		for _, want := range tt.want {
			if got := <-requests; got != want {
				t.Errorf("the server got %q, want %q", got, want)
			}
		}
	}
}
