package http_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestCookies checks which cookies a server receives: those intended for it of all
// responses, including redirects and rejections.
func TestCookies(t *testing.T) {
	var mu sync.Mutex
	var requests []string
	own, other := testcert.New("own"), testcert.New("other")
	h := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests = append(requests, r.Host+r.URL.Path+" "+strings.Join(r.Header["Cookie"], " AND "))
		mu.Unlock()
		w.Header().Add("Set-Cookie", fmt.Sprintf("%s=1; Path=/", strings.Trim(r.URL.Path, "/")))
		w.Header().Add("Set-Cookie", "private=1; Path=/private")
		switch r.URL.Path {
		case "/here":
			http.Redirect(w, r, "/there", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://b.test/arrived", http.StatusFound)
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	plain := serve(t, h)
	secure := server{handler: http.HandlerFunc(h), tls: own.Server([]string{"h2", "http/1.1"}, "a.test", "b.test")}.start(t)
	store := own.Store()
	both := &policy.TrustStore{Name: "both", Stack: append(own.Store().Stack, other.Store().Stack...)}
	st := func(name, host string, change func(*policy.StreamType)) *policy.StreamType {
		st := &policy.StreamType{Name: name, Endpoint: host, HTTP: &policy.HTTP{URL: "/" + name, Cookies: true, AllowRedirects: true},
			Metadata: []policy.Metadata{{Name: "own", Header: "cookie:"}}}
		if change != nil {
			change(st)
		}
		return st
	}
	tls := func(s *policy.TrustStore) func(*policy.StreamType) {
		return func(st *policy.StreamType) { st.TLS, st.TrustStore, st.Protocol = true, s, policy.ProtocolH2 }
	}
	jar := cookies.New()
	c := newPolicy(t, []*policy.StreamType{
		st("one", "a.test", nil), st("two", "a.test", nil), st("here", "a.test", nil), st("away", "a.test", nil), st("busy", "a.test", nil),
		st("none", "a.test", func(st *policy.StreamType) { st.HTTP.Cookies = false }),
		st("stored", "a.test", tls(store)), st("same", "a.test", tls(store)), st("others", "a.test", tls(both)),
	}, runtime.Options{Cookies: jar, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		to := plain
		if strings.HasSuffix(address, ":443") {
			to = secure
		}
		return new(net.Dialer).DialContext(ctx, network, to.String())
	}})
	for _, tt := range []struct {
		name string
		own  string
		want string
	}{
		{"one", "", "a.test/one "},
		{"two", "", "a.test/two one=1"},
		{"two", "x=y", "a.test/two x=y; one=1; two=1"},
		{"none", "", "a.test/none "},
		{"here", "", "a.test/here one=1; two=1, a.test/there one=1; two=1; here=1"},
		{"away", "x=y", "a.test/away x=y; one=1; two=1; here=1; there=1, b.test/arrived "},
		{"busy", "", "a.test/busy one=1; two=1; here=1; there=1; away=1"},
		{"one", "", "a.test/one one=1; two=1; here=1; there=1; away=1; busy=1"},
		{"stored", "", "a.test/stored "},
		{"same", "", "a.test/same stored=1"},
		{"others", "", "a.test/others "},
	} {
		mu.Lock()
		requests = nil
		mu.Unlock()
		var o []runtime.CallOption
		if tt.own != "" {
			o = append(o, runtime.WithMetadata("own", tt.own))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := c.Fetch(ctx, tt.name, o...)
		cancel()
		if (err != nil) != (tt.name == "busy") {
			t.Errorf("%s: %v", tt.name, err)
		}
		mu.Lock()
		if got := strings.Join(requests, ", "); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
		mu.Unlock()
	}
}

// TestNoJar checks that http_cookies is refused in a context without a jar.
func TestNoJar(t *testing.T) {
	c := newPolicy(t, []*policy.StreamType{{Name: "s", Endpoint: "h", HTTP: &policy.HTTP{Cookies: true}}}, runtime.Options{})
	_, err := c.NewStream("s", runtime.Handlers{})
	if !errors.Is(err, transport.ErrUnsupported) || !strings.Contains(err.Error(), "http_cookies") || !strings.Contains(err.Error(), "Options.Cookies") {
		t.Error(err)
	}
}

// TestCookieValues checks that a server receives the values that it has set, over h1 and
// h2.
func TestCookieValues(t *testing.T) {
	const set = `a={"x": 1, "y"}` + "\u00e4\xff"
	own := testcert.New("own")
	var got []string
	h := func(w http.ResponseWriter, r *http.Request) {
		got = r.Header["Cookie"]
		w.Header()["Set-Cookie"] = []string{set}
	}
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2} {
		s := server{handler: http.HandlerFunc(h), tls: own.Server([]string{"h2", "http/1.1"}, "a.test")}.start(t)
		st := &policy.StreamType{Name: "s", Endpoint: "a.test", TLS: true, TrustStore: own.Store(), Protocol: protocol, HTTP: &policy.HTTP{URL: "/", Cookies: true}}
		c := newPolicy(t, []*policy.StreamType{st}, runtime.Options{Cookies: cookies.New(), DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.String())
		}})
		for range 2 {
			if _, err := c.Fetch(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != 1 || got[0] != set {
			t.Errorf("%v: the server got back %q", protocol, got)
		}
	}
}
