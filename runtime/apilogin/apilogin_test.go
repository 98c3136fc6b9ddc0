package apilogin_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/leaktest"
	"github.com/secure-streams/sspolicy/runtime/apilogin"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// A gateway starts a session for each call with clientless-mode, like F5's policy manager.
// It answers a call with a session by echoing the request.
type gateway struct {
	mu       sync.Mutex
	sessions map[string]string // user by session id
	started  int
	starting func(*http.Request) // before the answer to a start; may be nil
	requests []*http.Request     // the last ones
	respond  http.HandlerFunc    // to a call with a session; may be nil
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests = append(g.requests, r)
	cookies := r.CookiesNamed("MRHSession")
	user, ok := "", false
	if len(cookies) == 1 {
		user, ok = g.sessions[cookies[0].Value]
	}
	starting, respond := g.starting, g.respond
	g.mu.Unlock()
	switch {
	case ok && respond != nil:
		respond(w, r)
	case ok:
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", user, r.URL.Path, body)
	case r.Header.Get("Clientless-Mode") != "1":
		http.Redirect(w, r, "/my.policy", http.StatusFound)
	default:
		if starting != nil {
			starting(r)
		}
		user, password, _ := r.BasicAuth()
		if password != "right" {
			w.Header().Set("Set-Cookie", "MRHSession=denied; Path=/")
			http.Error(w, "secret reason", http.StatusUnauthorized)
			return
		}
		g.mu.Lock()
		g.started++
		id := fmt.Sprintf("sid%d", g.started)
		g.sessions[id] = user
		g.mu.Unlock()
		w.Header().Add("Set-Cookie", "LastMRH_Session=x; Path=/")
		w.Header().Add("Set-Cookie", "MRHSession="+id+"; Path=/; Secure; HttpOnly")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", user, r.URL.Path, body)
	}
}

func (g *gateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.started
}

// take returns the requests since the last call.
func (g *gateway) take() []*http.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.requests
	g.requests = nil
	return r
}

// forget ends all sessions.
func (g *gateway) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.sessions)
}

// A proxy is Logins in front of a gateway.
type proxy struct {
	http.Handler
	*apilogin.Logins
	gateway *gateway
	log     *lockedBuffer
}

func newProxy(t testing.TB, o apilogin.Options) *proxy {
	t.Helper()
	p := &proxy{gateway: &gateway{sessions: map[string]string{}}, log: new(lockedBuffer)}
	o.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	l, err := apilogin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Logins, p.Handler = l, l.Middleware(p.gateway)
	return p
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// request returns a call of a user with the right password.
func request(user, path string, headers ...string) *http.Request {
	r := httptest.NewRequest("POST", path, strings.NewReader("body"))
	r.SetBasicAuth(user, "right")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// call makes a call and returns the answer.
func (p *proxy) call(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func (p *proxy) ok(t testing.TB, r *http.Request) {
	t.Helper()
	user, _, _ := r.BasicAuth()
	w := p.call(r)
	if want := user + " " + r.URL.Path + " body"; w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %q, want %q", w.Code, w.Body, want)
	}
	for _, c := range w.Result().Cookies() {
		if c.Name == "MRHSession" {
			t.Errorf("the caller got the session %s", c.Value)
		}
	}
}

func TestB1RequireBasic(t *testing.T) {
	for _, soap := range []bool{false, true} {
		p := newProxy(t, apilogin.Options{SOAP: soap})
		for _, tt := range []struct {
			name   string
			auth   []string
			status int
		}{
			{"none", nil, 401},
			{"empty", []string{""}, 401},
			{"scheme alone", []string{"Basic"}, 401},
			{"empty credentials", []string{"Basic "}, 401},
			{"no colon", []string{"Basic YQ=="}, 401},
			{"no user", []string{"Basic OnJpZ2h0"}, 401},
			{"not base64", []string{"Basic %%%"}, 401},
			{"another scheme", []string{"Bearer YTpyaWdodA=="}, 401},
			{"two", []string{"Basic YTpyaWdodA==", "Basic YjpyaWdodA=="}, 401},
			{"upper case", []string{"BASIC YTpyaWdodA=="}, 200},
			{"lower case", []string{"basic YTpyaWdodA=="}, 200},
		} {
			before := strings.Count(p.log.String(), "\n")
			r := httptest.NewRequest("GET", "/x", nil)
			r.Header["Authorization"] = tt.auth
			w := p.call(r)
			if w.Code != tt.status {
				t.Errorf("%s: %d", tt.name, w.Code)
			}
			if tt.status == 200 {
				continue
			}
			if w.Header().Get("Connection") != "close" || !strings.HasPrefix(w.Header().Get("Www-Authenticate"), "Basic ") || (w.Body.Len() > 0) != soap {
				t.Errorf("%s: %v %q", tt.name, w.Header(), w.Body)
			}
			if lines := strings.Count(p.log.String(), "\n") - before; lines != 1 {
				t.Errorf("%s: %d lines logged", tt.name, lines)
			}
		}
		for _, r := range p.gateway.take() {
			if u, _, _ := r.BasicAuth(); u != "a" {
				t.Error("a refused call reached the gateway")
			}
		}
	}
}

func TestB2Key(t *testing.T) {
	other := func(r *http.Request) *http.Request { r.RemoteAddr = "198.51.100.7:1"; return r }
	port := func(r *http.Request) *http.Request { r.RemoteAddr = "192.0.2.1:99"; return r }
	for _, tt := range []struct {
		o       apilogin.Options
		started int
	}{
		{apilogin.Options{}, 4},
		{apilogin.Options{Key: apilogin.Address}, 3},
		{apilogin.Options{Key: apilogin.Path}, 3},
		{apilogin.Options{UserOnly: true}, 2},
		{apilogin.Options{ClientAddress: func(*http.Request) string { return "" }}, 3},
	} {
		p := newProxy(t, tt.o)
		for range 2 {
			p.ok(t, request("ann", "/a"))
			p.ok(t, port(request("ann", "/a")))
			p.ok(t, request("ann", "/b"))
			p.ok(t, other(request("ann", "/a")))
			p.ok(t, request("bob", "/a"))
		}
		if got := p.gateway.count(); got != tt.started || p.Len() != tt.started {
			t.Errorf("%+v: %d sessions started, %d kept, want %d", tt.o, got, p.Len(), tt.started)
		}
		// A session requires the password that started it.
		r := request("ann", "/a")
		r.SetBasicAuth("ann", "wrong")
		if w := p.call(r); w.Code != 403 {
			t.Errorf("%+v: %d with a wrong password", tt.o, w.Code)
		}
	}
}

// TestB2KeyParts checks that the boundaries between the parts of a key are unambiguous.
func TestB2KeyParts(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	for _, u := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"", "abc"}, {"abc", ""}} {
		r := request(u[0], "/"+u[1])
		p.call(r)
	}
	if p.gateway.count() != 3 { // not without a user
		t.Error(p.gateway.count())
	}
}

// spellings are cookies that some servers may treat as the session.
var spellings = []string{
	"MRHSession=evil", "mrhsession=evil", "MRHSESSION=evil", "MRHSession =evil", " MRHSession=evil", "\tMRHSession=evil",
	"MRHSession", "MRHSession=", "MRHSession=a=b", `MRHSession="evil"`, `"MRHSession"=evil`, "MRHSession=evil; MRHSession=worse",
	"a=b; MRHSession=evil; c=d", "a=b;MRHSession=evil", "a=b;;; MRHSession=evil;", "a=b, MRHSession=evil", "a=b,MRHSession=evil",
	"MRHSess%69on=evil", "%4dRHSession=evil", "MRHSess%2569on=evil", "MRHSession%3Devil", "a=b%3b MRHSession=evil", "%zz, MRHSession=evil",
	"$Version=1; MRHSession=evil; $Path=/", "MRHSession\x00=evil", "MRHSession\x0b=evil", "MRHSession[]=evil", "MRHSession[0]=evil", "\xefMRHSession=evil",
	"MRH.Session=evil", "a=b&MRHSession=evil",
}

func TestB3StripCookies(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	for _, s := range spellings {
		for i := range 2 { // a miss, a hit
			r := request("ann", "/"+fmt.Sprintf("%x", s), "Cookie", s, "Cookie", "first=1; MRHSession=evil; last=2", "Cookie2", s)
			p.ok(t, r)
			got := p.gateway.take()
			text := strings.ToLower(fmt.Sprint(got[0].Header["Cookie"]))
			if strings.Contains(text, "evil") || strings.Contains(text, "worse") || got[0].Header["Cookie2"] != nil {
				t.Errorf("%q reached the gateway: %q", s, got[0].Header)
			}
			if n := strings.Count(text, "mrhsession"); n != i {
				t.Errorf("%q: call %d has %d sessions: %q", s, i, n, text)
			}
			if !strings.Contains(text, "first=1") || !strings.Contains(text, "last=2") {
				t.Errorf("%q: other cookies are lost: %q", s, text)
			}
		}
	}
	if p.gateway.count() != len(spellings) {
		t.Errorf("%d sessions for %d paths", p.gateway.count(), len(spellings))
	}
}

func FuzzStripCookies(f *testing.F) {
	for _, s := range spellings {
		f.Add(s)
	}
	p := newProxy(f, apilogin.Options{})
	f.Fuzz(func(t *testing.T, cookie string) {
		r := request("ann", "/")
		r.Header["Cookie"] = []string{cookie}
		p.call(r)
		for _, got := range p.gateway.take() {
			for _, c := range got.Cookies() {
				if strings.EqualFold(c.Name, "MRHSession") && !strings.HasPrefix(c.Value, "sid") {
					t.Errorf("%q: %q", cookie, got.Header["Cookie"])
				}
			}
		}
	})
}

// TestB4EmptySession checks that a cookie without value is not a session.
func TestB4EmptySession(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	h := p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Clientless-Mode") != "1" || r.Header.Get("Cookie") != "" {
			t.Errorf("not a start: %v", r.Header)
		}
		w.Header().Set("Set-Cookie", "MRHSession=")
	}))
	for range 3 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("ann", "/"))
		if w.Code != 200 || w.Header().Get("Set-Cookie") != "" {
			t.Error(w.Code, w.Header())
		}
	}
	if p.Len() != 0 {
		t.Error("an empty session is kept")
	}
}

// TestB5HitB6Miss checks that a hit has the session cookie and no clientless-mode, even if
// the caller sends one in any spelling.
func TestB5HitB6Miss(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	for i := range 10 {
		p.ok(t, request("ann", "/", "Clientless-Mode", "1", "Clientless_mode", "1", "Connection", "cookie, clientless-mode, upgrade", "Upgrade", "x"))
		got := p.gateway.take()
		if len(got) != 1 {
			t.Fatalf("call %d: %d requests", i, len(got))
		}
		h := got[0].Header
		start, cookie := []string{"1"}, ""
		if i > 0 {
			start, cookie = nil, "MRHSession=sid1"
		}
		if fmt.Sprint(h["Clientless-Mode"]) != fmt.Sprint(start) || h.Get("Cookie") != cookie || h["Clientless_mode"] != nil || h["Connection"] != nil || h["Upgrade"] != nil {
			t.Errorf("call %d: %v", i, h)
		}
	}
	if p.gateway.count() != 1 {
		t.Error(p.gateway.count(), "sessions")
	}
}

// TestB6OneStart checks that a hundred concurrent calls start one session.
func TestB6OneStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, apilogin.Options{})
		p.gateway.starting = func(*http.Request) { time.Sleep(time.Second) }
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { p.ok(t, request("ann", "/")) })
		}
		wg.Wait()
		if p.gateway.count() != 1 {
			t.Error(p.gateway.count(), "sessions")
		}
	})
}

// TestB6StartFails checks failures to start a session. If the starting caller disconnects,
// another one starts the session. A denial applies to all waiting callers, so that the
// user's account is not locked. If the gateway fails, each caller tries again.
func TestB6StartFails(t *testing.T) {
	run := func(t *testing.T, starting func(*http.Request), password string, next http.Handler, status int) (*proxy, *atomic.Int32) {
		p := newProxy(t, apilogin.Options{})
		var attempts atomic.Int32
		p.gateway.starting = func(r *http.Request) { attempts.Add(1); starting(r) }
		if next != nil {
			p.Handler = p.Middleware(next)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				r := request("ann", "/")
				r.SetBasicAuth("ann", password)
				if w := p.call(r); w.Code != status {
					t.Error(w.Code)
				}
			})
		}
		wg.Wait()
		return p, &attempts
	}
	synctest.Test(t, func(t *testing.T) {
		if _, attempts := run(t, func(*http.Request) { time.Sleep(time.Second) }, "wrong", nil, 403); attempts.Load() != 1 {
			t.Error("a denied caller caused", attempts.Load(), "attempts")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int32
		run(t, nil, "right", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			attempts.Add(1)
			time.Sleep(time.Second)
			w.WriteHeader(502)
		}), 502)
		if attempts.Load() != 20 {
			t.Error(attempts.Load())
		}
		time.Sleep(time.Minute)
	})
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, apilogin.Options{})
		p.gateway.starting = func(*http.Request) { time.Sleep(time.Second) }
		ctx, cancel := context.WithCancel(t.Context())
		slow := p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}))
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { _ = recover() }()
			slow.ServeHTTP(httptest.NewRecorder(), request("ann", "/").WithContext(ctx))
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() { p.ok(t, request("ann", "/")) })
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if p.gateway.count() != 1 {
			t.Error(p.gateway.count(), "sessions")
		}
	})
}

// TestB7NoPassword checks that the password is neither in the store, nor in the log, nor in
// an answer.
func TestB7NoPassword(t *testing.T) {
	s := newStore()
	p := newProxy(t, apilogin.Options{Store: s, Secret: bytes.Repeat([]byte("s"), 32)})
	p.ok(t, request("ann", "/"))
	p.gateway.forget()
	p.ok(t, request("ann", "/"))
	if len(s.m) != 1 {
		t.Fatal(s.m)
	}
	for k, v := range s.m {
		for _, secret := range []string{"right", "sid", "ann", "cmlnaHQ"} {
			if strings.Contains(k, secret) || bytes.Contains(v, []byte(secret)) {
				t.Errorf("the store has %q", secret)
			}
		}
	}
	for _, secret := range []string{"right", "YW5uOnJpZ2h0", "sid1"} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, p.log)
		}
	}
}

func TestB8Denied(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	r := request("ann", "/")
	r.SetBasicAuth("ann", "wrong")
	w := p.call(r)
	if w.Code != 403 || w.Header().Get("Connection") != "close" || w.Header().Get("Set-Cookie") != "" || w.Body.Len() != 0 || p.Len() != 0 {
		t.Error(w.Code, w.Header(), w.Body, p.Len())
	}
	// A 403 of the API itself is the caller's.
	p.ok(t, request("ann", "/"))
	p.gateway.respond = func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not yours", http.StatusForbidden) }
	if w := p.call(request("ann", "/")); w.Code != 403 || w.Body.String() != "not yours\n" || p.Len() != 1 {
		t.Error(w.Code, w.Body, p.Len())
	}
}

func TestB9Diagnostics(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	p.ok(t, request("ann", "/"))
	if p.log.String() != "" {
		t.Error("logged a good call:", p.log)
	}
	p.gateway.respond = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Reason", "teapot")
		w.Header().Set("Set-Cookie", "other=hush; Path=/")
		w.WriteHeader(418)
	}
	p.call(request("ann", "/", "X-Api-Key", "hush", "Cookie", "c=hush", "X-Long", strings.Repeat("l", 1000), "X-Plain", "shown"))
	log := p.log.String()
	for _, want := range []string{"status=418", "session=", "user=ann", "request.X-Plain=shown", "response.X-Reason=teapot", "request.Authorization=(redacted)", "…"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in %s", want, log)
		}
	}
	if strings.Contains(log, "hush") || strings.Contains(log, "sid1") || len(log) > 2000 {
		t.Errorf("secrets, or too much: %s", log)
	}
	// A redirect to the login page means that clientless-mode failed.
	q := newProxy(t, apilogin.Options{StartHeader: "wrong-mode"})
	if w := q.call(request("ann", "/")); w.Code != 302 || !strings.Contains(q.log.String(), "level=ERROR") || q.Len() != 0 {
		t.Error(w.Code, q.log)
	}
}

func TestB10Lifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, apilogin.Options{Idle: time.Minute, Lifetime: 10 * time.Minute})
		for i, tt := range []struct {
			wait    time.Duration
			started int
		}{
			{0, 1}, {59 * time.Second, 1}, {59 * time.Second, 1}, {time.Minute, 2}, // idle
			{50 * time.Second, 2}, {50 * time.Second, 2}, {50 * time.Second, 2}, {50 * time.Second, 2},
			{50 * time.Second, 2}, {50 * time.Second, 2}, {50 * time.Second, 2}, {50 * time.Second, 2},
			{50 * time.Second, 2}, {50 * time.Second, 2}, {50 * time.Second, 2}, {50 * time.Second, 3}, // absolute
		} {
			time.Sleep(tt.wait)
			p.ok(t, request("ann", "/"))
			if p.gateway.count() != tt.started {
				t.Errorf("step %d: %d sessions, want %d", i, p.gateway.count(), tt.started)
			}
		}
	})
}

// TestB10Vanished checks that a session that the gateway has forgotten is restarted once,
// invisibly to callers, even if many call concurrently.
func TestB10Vanished(t *testing.T) {
	for _, size := range []int{0, 100, 64 << 10, 64<<10 + 1} {
		p := newProxy(t, apilogin.Options{})
		p.ok(t, request("ann", "/"))
		p.gateway.forget()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				body := strings.Repeat("x", size)
				r := httptest.NewRequest("PUT", "/", strings.NewReader(body))
				r.SetBasicAuth("ann", "right")
				if w := p.call(r); w.Code != 200 || w.Body.String() != "ann / "+body {
					t.Errorf("%d bytes: %d, %d bytes", size, w.Code, w.Body.Len())
				}
			})
		}
		wg.Wait()
		if p.gateway.count() != 2 || p.Len() != 1 {
			t.Errorf("%d bytes: %d sessions started", size, p.gateway.count())
		}
	}
	// A gateway that reads the body before it answers that the session is unknown.
	for _, tt := range []struct{ size, status, started int }{{64 << 10, 200, 2}, {64<<10 + 1, 503, 1}} {
		p := newProxy(t, apilogin.Options{})
		p.ok(t, request("ann", "/"))
		p.gateway.forget()
		p.Handler = p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || len(body) != tt.size {
				t.Error(len(body), err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			p.gateway.ServeHTTP(w, r)
		}))
		r := httptest.NewRequest("PUT", "/", strings.NewReader(strings.Repeat("x", tt.size)))
		r.SetBasicAuth("ann", "right")
		if w := p.call(r); w.Code != tt.status || p.gateway.count() != tt.started {
			t.Errorf("%d bytes: %d, %d sessions", tt.size, w.Code, p.gateway.count())
		}
	}
	// Only once: a gateway that forgets immediately must not cause a loop.
	p := newProxy(t, apilogin.Options{})
	p.ok(t, request("ann", "/"))
	p.gateway.respond = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }
	if w := p.call(request("ann", "/")); w.Code != 200 || p.gateway.count() != 2 {
		t.Error(w.Code, p.gateway.count())
	}
}

// TestB10Renewed checks that the gateway may change the session, or end it.
func TestB10Renewed(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	p.ok(t, request("ann", "/"))
	p.gateway.sessions["other"] = "ann"
	p.gateway.respond = func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Set-Cookie", "MRHSession=other") }
	p.call(request("ann", "/"))
	p.gateway.respond = nil
	p.gateway.take()
	p.ok(t, request("ann", "/"))
	if got := p.gateway.take()[0].Header.Get("Cookie"); got != "MRHSession=other" {
		t.Error(got)
	}
	for _, end := range []string{"MRHSession=", "MRHSession=x; Max-Age=0", "MRHSession=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT"} {
		p.ok(t, request("ann", "/"))
		p.gateway.respond = func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Set-Cookie", end) }
		if w := p.call(request("ann", "/")); w.Header().Get("Set-Cookie") != "" || p.Len() != 0 {
			t.Errorf("%s: %d sessions", end, p.Len())
		}
		p.gateway.respond = nil
	}
}

func TestB11Faults(t *testing.T) {
	p := newProxy(t, apilogin.Options{SOAP: true})
	r := request("ann", "/")
	r.SetBasicAuth("ann", "wrong")
	for _, tt := range []struct {
		r      *http.Request
		status int
		text   string
	}{
		{httptest.NewRequest("GET", "/", nil), 401, "Missing Authorization header"},
		{r, 403, "The requested operation was denied. Please consult with your administrator. Your support ID is: "},
	} {
		w := p.call(tt.r)
		var e struct {
			XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
			Fault   struct {
				Code string `xml:"faultcode"`
				Text string `xml:"faultstring"`
			} `xml:"Body>Fault"`
		}
		if err := xml.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != tt.status || e.Fault.Code != "soap:Client" || !strings.HasPrefix(e.Fault.Text, tt.text) {
			t.Errorf("%d %+v %v", w.Code, e, err)
		}
		if id, ok := strings.CutPrefix(e.Fault.Text, tt.text); ok && tt.status == 403 && !strings.Contains(p.log.String(), id) {
			t.Error("the support id is not in the log")
		}
	}
}

// TestAttackUserName checks that control characters in user names reach neither header
// fields nor the log.
func TestAttackUserName(t *testing.T) {
	p := newProxy(t, apilogin.Options{Store: newStore(), Secret: make([]byte, 32)})
	name := "ann\r\nX-Evil=1\r\n\r\nlevel=ERROR"
	p.call(request(name, "/"))
	p.gateway.respond = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }
	p.call(request(name, "/"))
	for _, r := range p.gateway.take() {
		for k, v := range r.Header {
			if strings.ContainsAny(k+fmt.Sprint(v), "\r\n") || k == "X-Evil" {
				t.Errorf("%q: %q", k, v)
			}
		}
	}
	if log := p.log.String(); strings.Count(log, "\n") != 1 || strings.Contains(log, "\nX-Evil") {
		t.Errorf("%q", log)
	}
}

// TestAttackManyKeys checks that a caller that opens many sessions evicts only its own.
func TestAttackManyKeys(t *testing.T) {
	p := newProxy(t, apilogin.Options{MaxSessions: 50, MaxPerUser: 10})
	p.ok(t, request("bob", "/"))
	for i := range 1000 {
		p.ok(t, request("ann", fmt.Sprintf("/%d", i)))
		if p.Len() > 11 {
			t.Fatal(p.Len())
		}
		p.gateway.take()
	}
	before := p.gateway.count()
	p.ok(t, request("bob", "/"))
	if p.gateway.count() != before {
		t.Error("another user's session is gone")
	}
	for i := range 1000 {
		p.ok(t, request(fmt.Sprint("user", i), "/"))
		if p.Len() > 50 {
			t.Fatal(p.Len())
		}
	}
	for i := range 1000 { // refused credentials leave nothing
		r := request("eve", fmt.Sprint("/", i))
		r.SetBasicAuth("eve", fmt.Sprint(i))
		p.call(r)
	}
	if p.Len() > 50 {
		t.Error(p.Len())
	}
}

// TestStore checks that all members of a farm share sessions. Without the store, each works
// alone.
func TestStore(t *testing.T) {
	s := newStore()
	secret := bytes.Repeat([]byte("s"), 32)
	one, two := newProxy(t, apilogin.Options{Store: s, Secret: secret}), newProxy(t, apilogin.Options{Store: s, Secret: secret})
	two.Handler = two.Middleware(one.gateway)
	one.ok(t, request("ann", "/"))
	two.ok(t, request("ann", "/"))
	if one.gateway.count() != 1 {
		t.Error("the second member started a session")
	}
	// An attacker who writes to the store cannot insert a session.
	for k, v := range s.m {
		for i, bad := range [][]byte{nil, {}, []byte("x"), v[:len(v)-1], append(bytes.Clone(v[:len(v)-1]), v[len(v)-1]^1)} {
			s.m[k] = bad
			three := newProxy(t, apilogin.Options{Store: s, Secret: secret})
			three.ok(t, request("ann", "/"))
			if three.gateway.count() != 1 {
				t.Errorf("case %d: a session of the store was used", i)
			}
		}
		// The session of another user.
		s.m[k] = v
		one.ok(t, request("bob", "/"))
		for k2 := range s.m {
			if k2 != k {
				s.m[k2] = s.m[k]
			}
		}
		break
	}
	three := newProxy(t, apilogin.Options{Store: s, Secret: secret})
	three.ok(t, request("bob", "/"))
	if three.gateway.count() != 1 {
		t.Error("the session of another user was used")
	}
	s.err = errors.New("down")
	one.ok(t, request("ann", "/"))
	one.ok(t, request("new", "/"))
	one.ok(t, request("new", "/"))
	if !strings.Contains(one.log.String(), "the store fails") {
		t.Error("no warning")
	}
	one.gateway.forget()
	one.ok(t, request("ann", "/"))
}

func TestNewErrors(t *testing.T) {
	for _, o := range []apilogin.Options{
		{Cookie: "a b"}, {StartHeader: "a:"}, {StartValue: "1\r\nX: 1"}, {Realm: `a"b`}, {Store: newStore()}, {Secret: []byte("short")},
	} {
		if _, err := apilogin.New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

// store is a Store in memory.
type store struct {
	mu  sync.Mutex
	m   map[string][]byte
	err error
}

func newStore() *store { return &store{m: map[string][]byte{}} }

func (s *store) Get(_ context.Context, k string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[k], s.err
}

func (s *store) Set(_ context.Context, k string, v []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ttl <= 0 {
		return errors.New("no time to live")
	}
	if s.err == nil {
		s.m[k] = v
	}
	return s.err
}

func (s *store) Delete(_ context.Context, k string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, k)
	return s.err
}

// serve starts a server and returns its URL.
func serve(t testing.TB, h http.Handler) *url.URL {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestProxy checks that calls over the network through the reverse proxy create one session
// per key.
func TestProxy(t *testing.T) {
	p := newProxy(t, apilogin.Options{})
	front := serve(t, p.Proxy(serve(t, p.gateway)))
	const calls = 1000
	transport := &http.Transport{MaxIdleConnsPerHost: 20}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 20 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > calls {
					return
				}
				path := fmt.Sprintf("/%d", n%5)
				r, _ := http.NewRequest("POST", front.String()+path, strings.NewReader("body"))
				r.SetBasicAuth("ann", "right")
				r.Header.Set("Cookie", "MRHSession=sid1")
				resp, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || string(body) != "ann "+path+" body" {
					t.Errorf("%d %q %v", resp.StatusCode, body, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if p.gateway.count() != 5 || p.Len() != 5 {
		t.Errorf("%d sessions for 5 keys", p.gateway.count())
	}
	// The connection closes after a refusal.
	c, err := net.Dial("tcp", front.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if all, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 401 ") {
		t.Errorf("%q %v", all, err)
	}
}

// BenchmarkProxy compares calls through the middleware with those through
// httputil.ReverseProxy alone.
func BenchmarkProxy(b *testing.B) {
	backend := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Clientless-Mode") != "" {
			w.Header().Set("Set-Cookie", "MRHSession=sid")
		}
		io.WriteString(w, strings.Repeat("x", 1000))
	})
	logins, err := apilogin.New(apilogin.Options{})
	if err != nil {
		b.Fatal(err)
	}
	gateway := serve(b, backend)
	alone := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(gateway); r.SetXForwarded() }}
	kinds := map[string]*url.URL{"alone": serve(b, alone), "logins": serve(b, logins.Proxy(gateway))}
	took := map[string]time.Duration{}
	for b.Loop() {
		for name, u := range kinds {
			start := time.Now()
			r, _ := http.NewRequest("POST", u.String(), strings.NewReader("body"))
			r.SetBasicAuth("ann", "right")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			took[name] += time.Since(start)
		}
	}
	for name, d := range took {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), "µs/"+name)
	}
	b.ReportMetric(float64(took["alone"])/float64(took["logins"]), "throughput-ratio")
	http.DefaultClient.CloseIdleConnections()
}
