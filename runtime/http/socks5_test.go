package http_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A proxy is a SOCKS5 proxy that connects every name to one address.
type proxy struct {
	login string         // "user:password" that it requires; "" means none
	to    netip.AddrPort // of every connection

	mu       sync.Mutex
	requests []string // each as "type address"
}

func (p *proxy) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.requests, ", ")
}

func (p *proxy) serve(c net.Conn) {
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(c, b); err != nil {
			return make([]byte, n)
		}
		return b
	}
	methods := read(int(read(2)[1]))
	if p.login != "" {
		if !bytes.Contains(methods, []byte{2}) {
			c.Write([]byte{5, 0xff})
			return
		}
		c.Write([]byte{5, 2})
		user := read(int(read(2)[1]))
		password := read(int(read(1)[0]))
		if string(user)+":"+string(password) != p.login {
			c.Write([]byte{1, 1})
			return
		}
		c.Write([]byte{1, 0})
	} else {
		c.Write([]byte{5, 0})
	}
	head := read(4)
	host := ""
	switch head[3] {
	case 1:
		host = net.IP(read(4)).String()
	case 4:
		host = net.IP(read(16)).String()
	case 3:
		host = string(read(int(read(1)[0])))
	}
	port := read(2)
	p.mu.Lock()
	p.requests = append(p.requests, fmt.Sprintf("%d %s:%d", head[3], host, int(port[0])<<8|int(port[1])))
	p.mu.Unlock()
	up, err := net.Dial("tcp", p.to.String())
	if err != nil {
		c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	defer up.Close()
	c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 9})
	go func() {
		io.Copy(up, c)
		up.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, up)
}

// TestSOCKS5 checks which requests use a proxy, and that it resolves the names.
func TestSOCKS5(t *testing.T) {
	own := testcert.New("own")
	const name = "known-only-to-the-proxy.test"
	direct := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "direct") })
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		fmt.Fprint(w, r.Host, " ", r.Proto)
	})
	plain := server{handler: h}.start(t)
	clear2 := serveH2C(t, h)
	secure := server{handler: h, tls: own.Server([]string{"h2", "http/1.1"}, name)}.start(t)
	refused := server{refused: true}.start(t)
	for _, tt := range []struct {
		name          string
		login         string         // of the proxy
		global, local string         // via-socks5; PROXY stands for the address of the proxy
		to            netip.AddrPort // where the proxy connects to
		st            policy.StreamType
		body          string // "" means unreachable
		requests      string // that the proxy gets
	}{
		{name: "h1", global: "PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80}, body: name + " HTTP/1.1", requests: "3 " + name + ":80"},
		{name: "for the stream", local: "PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80}, body: name + " HTTP/1.1", requests: "3 " + name + ":80"},
		{name: "for the stream before the policy's", global: refused.String(), local: "PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80},
			body: name + " HTTP/1.1", requests: "3 " + name + ":80"},
		{name: "IPv4", global: "PROXY", to: plain, st: policy.StreamType{Endpoint: "192.0.2.1", Port: 7}, body: "192.0.2.1:7 HTTP/1.1", requests: "1 192.0.2.1:7"},
		{name: "IPv6", global: "PROXY", to: plain, st: policy.StreamType{Endpoint: "2001:db8::1", Port: 7}, body: "[2001:db8::1]:7 HTTP/1.1", requests: "4 2001:db8::1:7"},
		{name: "a URL", global: "PROXY", to: plain, st: policy.StreamType{Endpoint: "http://" + name + ":81/"}, body: name + ":81 HTTP/1.1", requests: "3 " + name + ":81"},
		{name: "login", login: "u:p@w", global: "u:p@w@PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80}, body: name + " HTTP/1.1", requests: "3 " + name + ":80"},
		{name: "login to a proxy that requires none", global: "u:pw@PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80}, body: name + " HTTP/1.1", requests: "3 " + name + ":80"},
		{name: "wrong login", login: "u:pw", global: "u:secret@PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80}},
		{name: "no login", login: "u:pw", global: "PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80}},
		{name: "h1 and TLS", global: "PROXY", to: secure, st: policy.StreamType{Endpoint: name, Port: 443, TLS: true}, body: name + " HTTP/1.1", requests: "3 " + name + ":443"},
		{name: "h2", global: "PROXY", to: secure, st: policy.StreamType{Endpoint: name, Port: 443, TLS: true, Protocol: policy.ProtocolH2}, body: name + " HTTP/2.0", requests: "3 " + name + ":443"},
		{name: "h2 without TLS", global: "PROXY", to: clear2, st: policy.StreamType{Endpoint: name, Port: 80, Protocol: policy.ProtocolH2}, body: name + " HTTP/2.0", requests: "3 " + name + ":80"},
		{name: "TLS of another host", global: "PROXY", to: secure, st: policy.StreamType{Endpoint: "other.test", Port: 443, TLS: true}, requests: "3 other.test:443"},
		{name: "redirect", global: "PROXY", to: plain, st: policy.StreamType{Endpoint: name, Port: 80, HTTP: &policy.HTTP{URL: "/redirect", AllowRedirects: true}},
			body: name + " HTTP/1.1", requests: "3 " + name + ":80"},
		{name: "target refused", global: "PROXY", to: refused, st: policy.StreamType{Endpoint: name, Port: 80}, requests: "3 " + name + ":80"},
		{name: "proxy refused, server reachable", global: refused.String(), st: policy.StreamType{Endpoint: direct.Addr().String(), Port: direct.Port()}},
		{name: "a web server instead of a proxy", global: direct.String(), st: policy.StreamType{Endpoint: direct.Addr().String(), Port: direct.Port()}},
		{name: "none", st: policy.StreamType{Endpoint: direct.Addr().String(), Port: direct.Port()}, body: "direct"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &proxy{login: tt.login, to: tt.to}
			at := server{conn: p.serve}.start(t).String()
			st := tt.st
			st.Name, st.Opportunistic = "s", true
			st.TrustStore = own.Store()
			st.SOCKS5Proxy = strings.Replace(tt.local, "PROXY", at, 1)
			if st.HTTP == nil {
				st.HTTP = &policy.HTTP{}
			}
			c := teststream.NewPolicyContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New()}, Logger: slog.New(slog.DiscardHandler), ConnectTimeout: 2 * time.Second},
				&policy.Policy{SOCKS5Proxy: strings.Replace(tt.global, "PROXY", at, 1), StreamTypes: []*policy.StreamType{&st}})
			tr := &teststream.Trace{}
			s, err := c.NewStream("s", handlers(tr))
			if err != nil {
				t.Fatal(err)
			}
			s.RequestTx()
			tr.AwaitEnd(t, "DIS", "ARF")
			if tt.body == "" && !strings.HasSuffix(tr.String(), "UNR ARF") || tr.Body() != tt.body || p.log() != tt.requests {
				t.Errorf("%s with %q through %q; want %q through %q; %v", tr, tr.Body(), p.log(), tt.body, tt.requests, s.Err())
			}
			if tt.body == "" && tt.requests == "" {
				if _, ok := errors.AsType[*transport.ProxyError](s.Err()); !ok && !errors.Is(s.Err(), transport.ErrTimeout) || strings.Contains(s.Err().Error(), "secret") {
					t.Errorf("Err returns %v", s.Err())
				}
			}
		})
	}
}

// TestSOCKS5Apart checks that streams share connections only with the same proxy and login,
// and that a unix socket uses no proxy.
func TestSOCKS5Apart(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })
	p := &proxy{to: plain}
	at := server{conn: p.serve}.start(t).String()
	name := serveUnix(t, status(200, "x").ServeHTTP)
	var types []*policy.StreamType
	for n, via := range map[string]string{"a": at, "b": at, "login": "u:p@" + at, "other login": "u:q@" + at, "unix": at} {
		st := &policy.StreamType{Name: n, SOCKS5Proxy: via, Opportunistic: true, Endpoint: plain.Addr().String(), Port: plain.Port(), HTTP: &policy.HTTP{}}
		if n == "unix" {
			st.Endpoint = "+" + name
		}
		types = append(types, st)
	}
	c := newPolicy(t, types, runtime.Options{})
	for _, step := range []struct {
		name  string
		dials int
	}{{"a", 1}, {"a", 1}, {"b", 1}, {"login", 2}, {"other login", 3}, {"a", 3}, {"login", 3}, {"unix", 3}} {
		tr := &teststream.Trace{}
		s, err := c.NewStream(step.name, handlers(tr))
		if err != nil {
			t.Fatal(err)
		}
		s.RequestTx()
		tr.AwaitEnd(t, "DIS", "ARF")
		p.mu.Lock()
		if len(p.requests) != step.dials || !strings.Contains(tr.String(), "ACK") {
			t.Errorf("%s: %s, %d connections, want %d: %v", step.name, tr, len(p.requests), step.dials, s.Err())
		}
		p.mu.Unlock()
	}
}

// TestSOCKS5Silent checks that a connection to a proxy that sends nothing is closed
// after ConnectTimeout.
func TestSOCKS5Silent(t *testing.T) {
	closed := make(chan struct{}, 10)
	at := server{conn: func(c net.Conn) {
		io.Copy(io.Discard, c)
		closed <- struct{}{}
	}}.start(t)
	tr := &teststream.Trace{On: teststream.Actions{"CRE": teststream.RequestTx}}
	_, s := newStream(t, policy.StreamType{Opportunistic: true, SOCKS5Proxy: at.String(), Retry: &policy.Retry{Backoff: []time.Duration{time.Millisecond}, Conceal: 1}},
		at, tr, runtime.Options{ConnectTimeout: 50 * time.Millisecond})
	tr.AwaitEnd(t, "ARF")
	tr.Want(t, "CRE POL CNG UNR POL CNG UNR ARF")
	if !errors.Is(s.Err(), transport.ErrTimeout) && !errors.Is(s.Err(), context.DeadlineExceeded) {
		t.Errorf("Err returns %v", s.Err())
	}
	for range 2 {
		<-closed
	}
}
