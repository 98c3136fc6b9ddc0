package oauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const root = "grant_type=refresh_token&refresh_token=s3kr1t-0&client_id=me"

// policyFor returns a policy with the streamtypes "service", which needs a token, and
// "tokens", which gets it, for servers at these addresses.
func policyFor(t *testing.T, tokens, service string) *policy.Policy {
	t.Helper()
	auth := &policy.Auth{Name: "lwa", StreamType: "tokens"}
	p := &policy.Policy{StreamTypes: []*policy.StreamType{
		{Name: "service", Opportunistic: true, Auth: auth, HTTP: &policy.HTTP{AuthHeader: "authorization:", AuthPreamble: "Bearer "}},
		{Name: "tokens", Opportunistic: true, HTTP: &policy.HTTP{Method: "POST", URL: "/token", WWWFormURLEncoded: true}},
	}}
	for i, addr := range []string{service, tokens} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		p.StreamTypes[i].Endpoint, p.StreamTypes[i].Port = host, uint16(n)
	}
	return p
}

// A bench is a context whose tokens come from a Source, and its log.
type bench struct {
	*runtime.Context
	source *Source
	logMu  sync.Mutex
	log    bytes.Buffer
}

func (b *bench) Write(p []byte) (int, error) {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	return b.log.Write(p)
}

func newBench(t *testing.T, p *policy.Policy, o Options, tr transport.Transport) *bench {
	t.Helper()
	memory := new(credentials.Memory)
	memory.SetBlob(policy.BlobAuth, rootIndex, root)
	b := &bench{source: New(memory, o)}
	b.Context = teststream.NewPolicyContext(t, runtime.Options{Transports: []transport.Transport{tr}, Credentials: b.source,
		Logger: slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))}, p)
	if err := b.source.Bind(b.Context); err != nil {
		t.Fatal(err)
	}
	return b
}

// private shuts the context down, and checks that neither the log nor fmt reveals a secret.
func (b *bench) private(t *testing.T, err error) {
	t.Helper()
	teststream.Shutdown(t, b.Context)
	b.source.mu.Lock() // fmt reads all fields
	defer b.source.mu.Unlock()
	text := b.log.String() + fmt.Sprintf("%v %+v %#v %q %x", err, err, err, err, err)
	for _, v := range []any{b.source, *b.source.tokens[0]} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			text += fmt.Sprintf(verb, v)
		}
	}
	for _, secret := range []string{"s3kr1t", fmt.Sprintf("%x", "s3kr1t"), fmt.Sprint([]byte("s3kr1t"))} {
		if strings.Contains(text, secret) {
			t.Errorf("secret %q in %s", secret, text)
		}
	}
}

// A tokenServer returns numbered tokens. Each request must contain the refresh token of the
// previous answer.
type tokenServer struct {
	requests atomic.Int32
	answer   func(w http.ResponseWriter, n int32)
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.requests.Add(1)
	if r.Method != "POST" || r.URL.Path != "/token" || r.PostFormValue("grant_type") != "refresh_token" ||
		r.PostFormValue("client_id") != "me" || r.PostFormValue("refresh_token") != fmt.Sprintf("s3kr1t-%d", n-1) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error": "invalid_grant", "error_description": "s3kr1t"}`)
		return
	}
	if s.answer != nil {
		s.answer(w, n)
		return
	}
	fmt.Fprintf(w, `{"access_token": "s3kr1t-token-%d", "token_type": "bearer", "expires_in": 3600, "refresh_token": "s3kr1t-%d"}`, n, n)
}

// addr returns the address of a server for h.
func addr(t *testing.T, h http.Handler) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// echo answers with the token of the request.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Authorization")) })

// TestOnce checks that many streams cause one request, and that the next request uses
// the new refresh token.
func TestOnce(t *testing.T) {
	tokens := &tokenServer{}
	rotated := ""
	b := newBench(t, policyFor(t, addr(t, tokens), addr(t, echo)), Options{Rotated: func(index int, request string) { rotated = fmt.Sprint(index, request) }}, sshttp.New())
	all := func(want string) {
		t.Helper()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if answer, err := b.Fetch(t.Context(), "service"); err != nil || string(answer.Body) != want {
					t.Errorf("%v, %v, want %s", answer, err, want)
				}
			})
		}
		wg.Wait()
	}
	all("Bearer s3kr1t-token-1")
	all("Bearer s3kr1t-token-1")
	if n := tokens.requests.Load(); n != 1 {
		t.Errorf("%d requests for a token", n)
	}
	if want := "0client_id=me&grant_type=refresh_token&refresh_token=s3kr1t-1"; rotated != want {
		t.Errorf("Rotated got %q, want %q", rotated, want)
	}
	b.source.Forget(0)
	all("Bearer s3kr1t-token-2") // needs the refresh token of the first answer
	if n := tokens.requests.Load(); n != 2 {
		t.Errorf("%d requests for a token", n)
	}
	b.private(t, nil)
}

// TestFailures checks answers without a token.
func TestFailures(t *testing.T) {
	long := strings.Repeat(" ", maxAnswer)
	for _, tt := range []struct {
		name   string
		status int
		body   string
		check  func(error) bool
	}{
		{"invalid_grant", 400, `{"error": "invalid_grant", "error_description": "s3kr1t"}`, refused("invalid_grant", 400)},
		{"another error", 401, `{"error": "s3kr1t"}`, refused("", 401)},
		{"500", 500, `{"access_token": "s3kr1t"}`, refused("", 500)},
		{"garbage", 200, `s3kr1t`, is(ErrAnswer)},
		{"empty", 200, ``, is(ErrAnswer)},
		{"no token", 200, `{"access_token": "", "refresh_token": "s3kr1t"}`, is(ErrAnswer)},
		{"not a string", 200, `{"access_token": 1}`, is(ErrAnswer)},
		{"trailing text", 200, `{"access_token": "s3kr1t"} s3kr1t`, is(ErrAnswer)},
		{"cut short", 200, `{"access_token": "s3kr1t`, is(ErrAnswer)},
		{"expired", 200, `{"access_token": "s3kr1t", "expires_in": 0}`, is(ErrAnswer)},
		{"bad expires_in", 200, `{"access_token": "s3kr1t", "expires_in": "s3kr1t"}`, is(ErrAnswer)},
		{"too long", 200, `{"access_token": "s3kr1t"}` + long, is(runtime.ErrTooLong)},
		{"line break", 200, `{"access_token": "s3kr1t\r\nx: y"}`, is(runtime.ErrBadCredentials)},
		{"unavailable", 503, `s3kr1t`, is(runtime.ErrAllRetriesFailed)},
	} {
		services := atomic.Int32{}
		b := newBench(t, policyFor(t, addr(t, &tokenServer{answer: func(w http.ResponseWriter, n int32) {
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}}), addr(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { services.Add(1) }))), Options{}, sshttp.New())
		_, err := b.Fetch(t.Context(), "service")
		if !tt.check(err) || services.Load() != 0 {
			t.Errorf("%s: %v, and %d requests to the service", tt.name, err, services.Load())
		}
		b.private(t, err)
	}
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func refused(code string, status int) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*RefusedError](err)
		return ok && e.Code == code && e.Status == status
	}
}

// A loop is a transport without a network. The streamtype "tokens" receives the result of
// answer; others request their token.
type loop struct {
	mu       sync.Mutex
	requests []time.Duration // times since start
	start    time.Time
	answer   func(n int, body string) (string, error)
	delay    time.Duration
}

func (t *loop) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolH1} }
func (t *loop) Prepare(s *transport.Setup) (transport.Connector, error) {
	return loopConnector{t, s}, nil
}

type loopConnector struct {
	*loop
	setup *transport.Setup
}

func (loopConnector) Close() error { return nil }

func (t loopConnector) Run(ctx context.Context, l transport.Link) error {
	text := ""
	if t.setup.Stream.Name == "tokens" {
		buf := make([]byte, 1024)
		piece, err := l.Tx(buf)
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.requests = append(t.requests, time.Since(t.start))
		k := len(t.requests)
		t.mu.Unlock()
		select {
		case <-time.After(t.delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if text, err = t.answer(k, string(buf[:piece.N])); err != nil {
			return err
		}
	} else {
		var err error
		if text, err = t.setup.Secret(ctx, policy.BlobAuth, 0); err != nil {
			return err
		}
	}
	if err := l.Connected(); err != nil {
		return err
	}
	if err := l.Rx([]byte(text), runtime.FlagSOM|runtime.FlagEOM); err != nil {
		return err
	}
	return l.Done(true)
}

// get returns the token of a stream, or the error as text.
func (b *bench) get(t *testing.T) string {
	answer, err := b.Fetch(t.Context(), "service")
	if err != nil {
		return err.Error()
	}
	return string(answer.Body)
}

func newLoop(t *testing.T, answer func(n int, body string) (string, error), o Options) (*loop, *bench) {
	tr := &loop{start: time.Now(), answer: answer}
	return tr, newBench(t, policyFor(t, "tokens:1", "service:1"), o, tr)
}

// TestRenewal checks that a token is renewed before it expires, in the background, and only
// if a stream needs it.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, b := newLoop(t, func(n int, body string) (string, error) {
			return fmt.Sprintf(`{"access_token": "token-%d", "expires_in": "1000"}`, n), nil
		}, Options{Margin: 100 * time.Second})
		tr.delay = 2 * time.Second
		for _, step := range []struct {
			at   time.Duration // in seconds
			want string
			n    int           // number of requests so far
			took time.Duration // in seconds
		}{
			{0, "token-1", 1, 2},
			{500, "token-1", 1, 0},
			{849, "token-1", 1, 0},
			{905, "token-1", 2, 0}, // the margin has begun
			{908, "token-2", 2, 0},
			{1500, "token-2", 2, 0},
			{9000, "token-3", 3, 2}, // expired
		} {
			time.Sleep(time.Until(tr.start.Add(step.at * time.Second)))
			start := time.Now()
			if got := b.get(t); got != step.want || time.Since(start) != step.took*time.Second {
				t.Errorf("after %v s: %s after %v, want %s after %v s", int(step.at), got, time.Since(start), step.want, int(step.took))
			}
			synctest.Wait()
			tr.mu.Lock()
			if len(tr.requests) != step.n {
				t.Errorf("after %v s: %d requests, want %d", int(step.at), len(tr.requests), step.n)
			}
			tr.mu.Unlock()
		}
	})
}

// TestSpread checks that the time of renewal is random, and that tokens with a short
// lifetime are not renewed continuously.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			life, first, last time.Duration
		}{{3600, 3510, 3540}, {10, 2, 6}} { // a margin of 60 to 90 s; of 5 to 7.5 s with a lifetime of 10 s
			different := map[time.Duration]bool{}
			for range 20 {
				_, b := newLoop(t, func(int, string) (string, error) {
					return fmt.Sprintf(`{"access_token": "x", "expires_in": %d}`, tt.life), nil
				}, Options{})
				b.get(t)
				left := time.Until(b.source.tokens[0].renew)
				if left < tt.first*time.Second || left > tt.last*time.Second {
					t.Errorf("renewed after %v of %d s", left, tt.life)
				}
				different[left] = true
				teststream.Shutdown(t, b.Context)
			}
			if len(different) < 10 {
				t.Errorf("only %d different times of 20", len(different))
			}
		}
	})
}

// TestBackoff checks that failures delay the next request, while a valid token remains in
// use.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		ok := 1
		tr, b := newLoop(t, func(n int, body string) (string, error) {
			if n > ok {
				return "", down
			}
			return `{"access_token": "token", "expires_in": 100}`, nil
		}, Options{Margin: 20 * time.Second})
		good, bad := 0, 0
		for time.Since(tr.start) < time.Hour {
			if got := b.get(t); got == "token" {
				good++
			} else if strings.Contains(got, "down") {
				bad++
			} else {
				t.Fatal(got)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if good != 1000 || bad != 35000 {
			t.Errorf("%d attempts had a token, %d had none", good, bad)
		}
		// One, then after 0.5 to 1 s, 1 to 2 s, … 150 to 300 s.
		if n := len(tr.requests); n < 1+9+10 || n > 1+11+25 {
			t.Errorf("%d requests in an hour: %v", n, tr.requests)
		}
		last := tr.requests[len(tr.requests)-3:]
		if d := last[2] - last[1]; d < 150*time.Second || d > 301*time.Second {
			t.Errorf("the last wait was %v", d)
		}
		ok = 1000
		time.Sleep(5 * time.Minute)
		if got := b.get(t); got != "token" {
			t.Errorf("after the server has recovered: %s", got)
		}
	})
}

// TestCancel checks that neither a stream that ends nor a context that closes waits for the
// token server.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, b := newLoop(t, func(n int, body string) (string, error) { return `{"access_token": "token"}`, nil }, Options{})
		tr.delay = 10 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Fetch(ctx, "service"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if got := b.get(t); got != "token" || len(tr.requests) != 1 || time.Since(tr.start) != 10*time.Second {
			t.Errorf("%s after %v and %d requests; want the token of the running request", got, time.Since(tr.start), len(tr.requests))
		}
		b.source.Forget(0)
		go b.get(t)
		time.Sleep(time.Second)
		start := time.Now()
		teststream.Shutdown(t, b.Context)
		if d := time.Since(start); d != 0 {
			t.Errorf("Shutdown took %v", d)
		}
		time.Sleep(time.Second)
		if _, err := b.source.Blob(t.Context(), policy.BlobAuth, 0); !errors.Is(err, runtime.ErrClosed) {
			t.Errorf("after Shutdown: %v", err)
		}
	})
}

// TestBase checks texts of the base, and requests made from it.
func TestBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		tr := &loop{start: time.Now(), answer: func(n int, body string) (string, error) {
			bodies = append(bodies, body)
			return fmt.Sprintf(`{"access_token": "t%d", "refresh_token": "r%d"}`, n, n), nil
		}}
		memory := new(credentials.Memory)
		source := New(memory, Options{})
		p := policyFor(t, "tokens:1", "service:1")
		p.StreamTypes[0].Auth, p.StreamTypes[1].Name = nil, "tokens"
		p.StreamTypes = append(p.StreamTypes, &policy.StreamType{Name: "x", Auth: &policy.Auth{StreamType: "tokens", Blob: 0}, HTTP: &policy.HTTP{}})
		c := teststream.NewPolicyContext(t, runtime.Options{Transports: []transport.Transport{tr}, Credentials: source}, p)
		get := func(want string, target error) {
			t.Helper()
			if text, err := source.Blob(t.Context(), policy.BlobAuth, 0); text != want || !errors.Is(err, target) {
				t.Errorf("%q, %v, want %q, %v", text, err, want, target)
			}
		}
		memory.SetBlob(policy.BlobAuth, 1, "refresh_token=a&x=y")
		get("", runtime.ErrNoCredentials) // before Bind
		if err := source.Bind(c); err != nil {
			t.Fatal(err)
		}
		memory.SetBlob(policy.BlobAuth, 0, "base")
		get("base", nil)
		memory.SetBlob(policy.BlobAuth, 0, "")
		get("t1", nil)
		source.Forget(0)
		get("t2", nil)
		source.Forget(0)
		memory.SetBlob(policy.BlobAuth, 1, "refresh_token=b")
		get("t3", nil)
		source.Forget(0)
		memory.SetBlob(policy.BlobAuth, 1, "no form %")
		get("t4", nil)
		source.Forget(0)
		memory.SetBlob(policy.BlobAuth, 1, "")
		get("", runtime.ErrNoCredentials)
		want := []string{"refresh_token=a&x=y", "refresh_token=r1&x=y", "refresh_token=b", "no form %"}
		if fmt.Sprint(bodies) != fmt.Sprint(want) {
			t.Errorf("requests %q, want %q", bodies, want)
		}
		for _, tt := range []struct {
			b     policy.Blob
			index int
		}{{policy.BlobAuth, 2}, {policy.BlobAuth, 17}, {policy.BlobDeviceSerial, 0}} {
			if text, err := source.Blob(t.Context(), tt.b, tt.index); text != "" || !errors.Is(err, runtime.ErrNoCredentials) {
				t.Errorf("%v %d: %q, %v", tt.b, tt.index, text, err)
			}
		}
		if _, err := source.ClientCertificate(t.Context(), 0); !errors.Is(err, runtime.ErrNoCredentials) {
			t.Error(err)
		}
	})
}

// TestBind checks which streamtype gets each token of a policy.
func TestBind(t *testing.T) {
	post := &policy.HTTP{Method: "POST"}
	uses := func(blob uint8, by string) *policy.StreamType {
		return &policy.StreamType{Name: "uses-" + by, Auth: &policy.Auth{Name: "a-" + by, StreamType: by, Blob: blob}, HTTP: &policy.HTTP{AuthHeader: "x"}}
	}
	plain := func(name string) *policy.StreamType { return &policy.StreamType{Name: name, HTTP: post} }
	for _, tt := range []struct {
		types []*policy.StreamType
		want  [4]string
		err   string
	}{
		{nil, [4]string{}, ""},
		{[]*policy.StreamType{plain("api_amazon_com_auth")}, [4]string{"api_amazon_com_auth"}, ""},
		{[]*policy.StreamType{plain("api_amazon_com_auth"), plain("lwa"), uses(0, "lwa")}, [4]string{"lwa"}, ""},
		{[]*policy.StreamType{plain("a"), plain("b"), uses(0, "a"), uses(3, "b"), uses(3, "b")}, [4]string{"a", "", "", "b"}, ""},
		{[]*policy.StreamType{uses(0, "lwa")}, [4]string{}, `auth "a-lwa": the policy has no streamtype "lwa"`},
		{[]*policy.StreamType{plain("a"), plain("b"), uses(1, "a"), uses(1, "b")}, [4]string{}, `auth "a-a" and "a-b" get the same token, blob 1`},
		{[]*policy.StreamType{uses(2, "uses-uses-x"), {Name: "uses-uses-x", HTTP: post, Auth: &policy.Auth{Blob: 2}}}, [4]string{}, `which it must get`},
		{[]*policy.StreamType{{Name: "api_amazon_com_auth", HTTP: &policy.HTTP{AuthHeader: "x"}}}, [4]string{}, `which it must get`},
		{[]*policy.StreamType{{Name: "s3", HTTP: post, Auth: &policy.Auth{Type: "sigv4", StreamType: "none"}}}, [4]string{}, ""},
	} {
		p := &policy.Policy{StreamTypes: tt.types}
		c := teststream.NewPolicyContext(t, runtime.Options{}, p)
		err := New(new(credentials.Memory), Options{}).Bind(c)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%v, want %s", err, tt.err)
		}
		for i, want := range tt.want {
			if got, _ := getter(p, i); got != want && tt.err == "" {
				t.Errorf("streamtype %q gets token %d, want %q", got, i, want)
			}
		}
	}
	s := New(new(credentials.Memory), Options{})
	for i := range 2 {
		c := teststream.NewContext(t, runtime.Options{})
		if err := s.Bind(c); (err == nil) != (i == 0) {
			t.Errorf("context %d: %v", i, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"access_token": "x", "expires_in": 3600, "refresh_token": "y"}`, `{"access_token": "x", "expires_in": "1e300"}`,
		`{"expires_in": -1}`, `{"error": "invalid_grant"}`, `{"access_token":"x","expires_in":"\u0031"}`, `[]`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body)
		if err == nil && (a.token == "" || a.lifetime < 0 || a.lifetime > maxLifetime) {
			t.Errorf("%+v", a)
		}
		if code := errorCode(body); len(code) > 30 {
			t.Error(code)
		}
		if next, ok := rotate("refresh_token=a&b=c", a.refresh); ok && !strings.Contains(next, "b=c") {
			t.Error(next)
		}
	})
}

// TestNoBase checks a source without other credentials.
func TestNoBase(t *testing.T) {
	s := New(nil, Options{})
	if text, err := s.Blob(t.Context(), policy.BlobAuth, 0); text != "" || !errors.Is(err, runtime.ErrNoCredentials) {
		t.Errorf("%q, %v", text, err)
	}
	if cert, err := s.ClientCertificate(t.Context(), 1); cert != nil || !errors.Is(err, runtime.ErrNoCredentials) {
		t.Errorf("%v, %v", cert, err)
	}
}
