//go:build linux

package conformance

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

const (
	fetched     = "CRE POL CNG CON rx rx(EOM) ACK DIS"
	unreachable = "CRE POL CNG UNR POL CNG UNR POL CNG UNR ARF"
	cutShort    = "CRE POL CNG CON rx DIS"
)

// A row is a line of the table of sequences.
type row struct {
	name string
	only string // the program it is for; "" both
	at   string // the address; "" plain for h1, TLS for the rest
	by   string // ways to run it: of "h1", "h1+TLS", "h2"; "" all
	url  string
	st   func(*policy.StreamType)

	tx      string // what it sends, if anything
	chunked bool   // without saying before how long that is
	times   int    // how many transactions, one after the other; 0 is 1
	limit   time.Duration

	want   string // sequence
	h2     string // sequence over h2, if another
	cause  func(error) bool
	body   string
	result func(t *testing.T, tr *trace, s *runtime.Stream)
}

// TestPrograms runs the sequences of docs/runtime.md against nginx and haproxy.
func TestPrograms(t *testing.T) {
	m := setMark()
	own, other := testcert.New("own"), testcert.New("other")
	rows := []row{
		{name: "GET 200", url: "/hello", want: fetched, body: "hello"},
		{name: "by Connect", url: "/hello", st: func(st *policy.StreamType) { st.NailedUp = true },
			want: "CRE CNG CON rx rx(EOM) ACK DIS", body: "hello"},
		{name: "keep-alive", url: "/port", times: 4, want: again(fetched, 4), result: onePort},
		{name: "the server closes each time", at: "closing", by: "h1", url: "/port", times: 3, want: again(fetched, 3), result: newPorts},
		{name: "204", url: "/204", want: "CRE POL CNG CON ACK DIS"},
		{name: "empty body", url: "/empty", want: "CRE POL CNG CON ACK DIS"},
		{name: "HEAD", url: "/large", st: method("HEAD"), want: "CRE POL CNG CON ACK DIS"},
		{name: "404", url: "/404", want: "CRE POL CNG CON rx rx(EOM) NAK DIS", body: "there is no such page"},
		{name: "404 expected", url: "/404", st: func(st *policy.StreamType) { st.HTTP.Expect = 404 }, want: fetched},
		{name: "404 mapped to 1404", url: "/404", st: func(st *policy.StreamType) {
			st.HTTP.RespMap = []policy.StatusState{{Status: 404, State: 1404}}
		}, want: "CRE POL CNG USER_1404 CON rx rx(EOM) NAK DIS"},
		{name: "503 with Retry-After", url: "/503", st: conceal(1), want: "CRE POL CNG UNR POL CNG UNR ARF", cause: isStatus(503),
			result: waited(time.Second)},
		{name: "429", url: "/429", want: unreachable, cause: isStatus(429)},
		{name: "redirect followed", url: "/redirect", st: func(st *policy.StreamType) { st.HTTP.AllowRedirects = true }, want: fetched, body: "hello"},
		{name: "redirect refused", url: "/redirect", st: conceal(1), want: "CRE POL CNG UNR POL CNG UNR ARF", cause: isRedirect},
		{name: "POST with its length", url: "/echo", st: method("POST"), tx: "one and two", want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS",
			body: "one and two", result: framing("11")},
		{name: "POST chunked", by: "h1 h1+TLS", url: "/echo", st: method("POST"), tx: "one and two", chunked: true,
			want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS", body: "one and two", result: framing("chunked")},
		{name: "POST without a length", by: "h2", url: "/echo", st: method("POST"), tx: "one and two", chunked: true,
			want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS", body: "one and two"},
		{name: "PUT with its length", url: "/echo", st: method("PUT"), tx: "one and two", want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS",
			body: "one and two", result: framing("11")},
		{name: "PATCH with its length", url: "/echo", st: method("PATCH"), tx: "one and two", want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS",
			body: "one and two", result: framing("11")},
		{name: "PATCH chunked", by: "h1 h1+TLS", url: "/echo", st: method("PATCH"), tx: "one and two", chunked: true,
			want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS", body: "one and two", result: framing("chunked")},
		{name: "POST without Tx", url: "/echo", st: method("POST"), want: "CRE POL CNG CON ACK DIS", result: framing("0")},
		{name: "large POST", url: "/echo", st: method("POST"), tx: string(large[:1<<20]), want: "CRE POL CNG tx CON rx rx(EOM) ACK DIS",
			body: string(large[:1<<20]), result: framing("1048576")},
		{name: "large body", url: "/large", want: fetched, body: string(large)},
		{name: "a slow answer", url: "/slow", want: fetched, body: "hello"},
		{name: "a slow body", url: "/drip", want: fetched, body: strings.Repeat("hello", 5)},
		{name: "no answer", url: "/never", st: conceal(1), limit: 100 * time.Millisecond, want: "CRE POL CNG UNR POL CNG UNR ARF",
			cause: is(runtime.ErrTimeout)},
		{name: "tarpit", only: "haproxy", url: "/tarpit", want: "CRE POL CNG CON rx rx(EOM) NAK DIS"},
		{name: "the server hangs up", url: "/reject", want: unreachable},
		{name: "silent-drop of the request", only: "haproxy", by: "h1", url: "/silent-drop", st: conceal(1), limit: 200 * time.Millisecond,
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: is(runtime.ErrTimeout)},
		{name: "connection rejected", only: "haproxy", at: "reject", by: "h1", want: unreachable},
		{name: "connection rejected before TLS", only: "haproxy", at: "reject", by: "h1+TLS h2", want: unreachable},
		{name: "silent-drop of the connection", only: "haproxy", at: "silent-drop", by: "h1", limit: 200 * time.Millisecond, want: unreachable},
		{name: "silent-drop before TLS", only: "haproxy", at: "silent-drop", by: "h1+TLS h2", limit: 200 * time.Millisecond, want: unreachable},
		{name: "cut body", url: "/cut", want: cutShort, body: "hello", cause: isCut},
		{name: "cut body, chunked", url: "/cut-chunked", only: "nginx", want: cutShort, body: "hello", cause: isCut},
		// Over h2, haproxy 2.6 ends such a body as if it were whole.
		{name: "cut body, chunked", url: "/cut-chunked", only: "haproxy", by: "h1 h1+TLS", want: cutShort, body: "hello", cause: isCut},
		{name: "body that the server gives up", url: "/stall", want: cutShort, body: "hello", cause: isCut},

		{name: "TLS 1.2 at most", at: "TLS 1.2", by: "h1+TLS h2", url: "/hello", want: fetched},
		{name: "TLS 1.1 at most", at: "TLS 1.1", by: "h1+TLS h2", url: "/hello", want: unreachable, cause: isAlert},
		{name: "expired", at: "expired", by: "h1+TLS h2", url: "/hello", want: unreachable, cause: isTLS},
		{name: "self-signed", at: "self-signed", by: "h1+TLS h2", url: "/hello", want: unreachable, cause: isTLS},
		{name: "wrong host", at: "wrong host", by: "h1+TLS h2", url: "/hello", want: unreachable, cause: isTLS},
		{name: "wrong store", by: "h1+TLS h2", url: "/hello", st: secure(other.Store()), want: unreachable, cause: isTLS},
		{name: "no store", by: "h1+TLS h2", url: "/hello", st: secure(nil), want: unreachable},
		{name: "TLS to a plain port", at: "plain", by: "h1+TLS h2", url: "/hello", want: unreachable},
		{name: "plain to a TLS port", only: "haproxy", at: "TLS", by: "h1", url: "/hello", want: unreachable},
		{name: "plain to a TLS port", only: "nginx", at: "TLS", by: "h1", url: "/hello", want: "CRE POL CNG CON rx rx(EOM) NAK DIS"},
		{name: "h2 not offered", at: "no h2", by: "h2", url: "/hello", want: unreachable},
		{name: "h1 where h2 is not offered", at: "no h2", by: "h1+TLS", url: "/hello", want: fetched},
	}
	t.Run("all", func(t *testing.T) {
		for _, p := range []*program{&nginx, &haproxy} {
			site := p.start(t, own)
			checkOldTLS(t, site)
			t.Run(p.name, func(t *testing.T) {
				for _, r := range rows {
					if r.only != "" && r.only != p.name {
						continue
					}
					for _, by := range []string{"h1", "h1+TLS", "h2"} {
						if r.by != "" && !strings.Contains(" "+r.by+" ", " "+by+" ") {
							continue
						}
						t.Run(r.name+"/"+by, func(t *testing.T) { r.run(t, site, by, own) })
					}
				}
				t.Run("h2 shared", func(t *testing.T) { sharedH2(t, site, own) })
				for _, by := range []string{"h1", "h1+TLS", "h2"} {
					t.Run("multipart/"+by, func(t *testing.T) { multiparts(t, site, by, own) })
				}
			})
		}
	})
	m.check(t)
}

// checkOldTLS checks that the server which is to be too old does work.
func checkOldTLS(t *testing.T, s *site) {
	c, err := tls.Dial("tcp", s.addrs["TLS 1.1"].String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10})
	if err != nil {
		t.Errorf("the server with TLS 1.1 does not talk to a client that would: %v", err)
		return
	}
	if v := c.ConnectionState().Version; v > tls.VersionTLS11 {
		t.Errorf("the server with TLS 1.1 agreed to %s", tls.VersionName(v))
	}
	c.Close()
}

func (r row) run(t *testing.T, site *site, by string, own *testcert.Authority) {
	t.Parallel()
	at := r.at
	if at == "" {
		at = map[bool]string{true: "plain", false: "TLS"}[by == "h1"]
	}
	st := streamType(site.addrs[at])
	st.HTTP.URL = r.url
	st.Retry = teststream.Retry(2)
	if by != "h1" {
		secure(own.Store())(st)
	}
	if by == "h2" {
		h2(st)
	}
	if r.st != nil {
		r.st(st)
	}
	want := r.want
	if by == "h2" && r.h2 != "" {
		want = r.h2
	}
	c := newContext(t, runtime.Options{ConnectTimeout: r.limit}, st)
	defer c.Close()
	tr := &trace{on: map[string]func(*runtime.Stream) runtime.Result{}}
	left := max(r.times, 1)
	var done atomic.Bool
	tr.on["DIS"] = func(s *runtime.Stream) runtime.Result {
		if left--; left > 0 {
			tr.mu.Lock()
			tr.body = append(tr.body, ' ')
			tr.mu.Unlock()
			s.RequestTx()
		} else {
			done.Store(true)
		}
		return runtime.OK
	}
	tr.on["ARF"] = func(*runtime.Stream) runtime.Result { done.Store(true); return runtime.OK }
	h := tr.handlers()
	sent := 0
	if r.tx != "" {
		h.Tx = func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			var flags runtime.Flags
			if sent == 0 {
				tr.Note(s, "tx")
				flags = runtime.FlagSOM
			}
			n := copy(buf, r.tx[sent:])
			if sent += n; sent == len(r.tx) {
				flags |= runtime.FlagEOM
			}
			return n, flags, runtime.OK
		}
	}
	s, err := c.NewStream("s", h)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if !st.NailedUp {
		if r.tx != "" && !r.chunked {
			s.RequestTxLen(uint64(len(r.tx)))
		} else {
			s.RequestTx()
		}
	}
	tr.Await(done.Load)
	took := time.Since(start)
	time.Sleep(20 * time.Millisecond) // what comes too much would come within a few waits
	cause := s.Err()
	got := tr.String()
	t.Logf("expected %s", want)
	t.Logf("seen     %s (%v, %v)", got, took.Round(time.Millisecond), cause)
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if failed := strings.HasSuffix(want, "ARF") || strings.HasSuffix(want, "rx DIS"); failed != (cause != nil) || r.cause != nil && !r.cause(cause) {
		t.Errorf("the cause is %v (%T)", cause, cause)
	}
	if r.body != "" && string(tr.body) != r.body {
		t.Errorf("%d bytes of body where there should be %d, or others", len(tr.body), len(r.body))
	}
	if r.result != nil {
		tr.Note(s, "took "+took.String())
		r.result(t, tr, s)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if tr.Count("DES") != 1 {
		t.Errorf("no end of the stream: %s", tr)
	}
}

func again(seq string, n int) string {
	return seq + strings.Repeat(strings.TrimPrefix(seq, "CRE"), n-1)
}

func method(m string) func(*policy.StreamType) {
	return func(st *policy.StreamType) {
		st.HTTP.Method = m
		st.Metadata = []policy.Metadata{{Name: "framing", Header: "x-framing:"}}
	}
}

func conceal(n uint16) func(*policy.StreamType) {
	return func(st *policy.StreamType) { st.Retry = teststream.Retry(n) }
}

func onePort(t *testing.T, tr *trace, _ *runtime.Stream) {
	ports := bytes.Fields(tr.body)
	for _, p := range ports {
		if !bytes.Equal(p, ports[0]) {
			t.Errorf("the requests came over several connections: from ports %q", ports)
		}
	}
}

func newPorts(t *testing.T, tr *trace, _ *runtime.Stream) {
	seen := map[string]bool{}
	for _, p := range bytes.Fields(tr.body) {
		if seen[string(p)] {
			t.Errorf("a connection that the server closed was used again: %q", tr.body)
		}
		seen[string(p)] = true
	}
}

func waited(least time.Duration) func(*testing.T, *trace, *runtime.Stream) {
	return func(t *testing.T, tr *trace, _ *runtime.Stream) {
		took, err := time.ParseDuration(strings.TrimPrefix(tr.Last(), "took "))
		if err != nil || took < least {
			t.Errorf("it took %v, and the server asked to wait for %v", took, least)
		}
	}
}

func framing(want string) func(*testing.T, *trace, *runtime.Stream) {
	return func(t *testing.T, _ *trace, s *runtime.Stream) {
		if got, err := s.Metadata("framing"); got != want {
			t.Errorf("the length that the server was told is %q, %v; want %q", got, err, want)
		}
	}
}

// multiparts checks that a form of two streamtypes reaches the server, and that
// an answer in parts is taken apart.
func multiparts(t *testing.T, site *site, by string, own *testcert.Authority) {
	t.Parallel()
	types := []*policy.StreamType{}
	for _, name := range []string{"about", "file", "parts"} {
		st := streamType(site.addrs[map[bool]string{true: "plain", false: "TLS"}[by == "h1"]])
		st.Name = name
		if by != "h1" {
			secure(own.Store())(st)
		}
		if by == "h2" {
			h2(st)
		}
		st.HTTP.Method, st.HTTP.URL, st.HTTP.MultipartName = "POST", "/form", name
		switch name {
		case "about":
			st.Rideshare = "file"
		case "file":
			st.HTTP.MultipartFilename, st.HTTP.MIMEContentType = "a.bin", "application/octet-stream"
		case "parts":
			st.HTTP = &policy.HTTP{URL: "/parts", MultipartSSIn: true}
		}
		types = append(types, st)
	}
	c := newContext(t, runtime.Options{}, types...)
	defer c.Close()
	for _, known := range []bool{true, false} {
		length := int64(len(large))
		if !known {
			length = -1
		}
		r, err := c.Fetch(t.Context(), "about", runtime.WithBody([]byte("me & you")), runtime.WithPartReader("file", bytes.NewReader(large), length))
		if err != nil {
			t.Error(err)
			continue
		}
		want := fmt.Sprintf("%q a.bin application/octet-stream %d %x <nil> %v", "me & you", len(large), sha256.Sum256(large), known)
		if string(r.Body) != want {
			t.Errorf("the server got %s, want %s", r.Body, want)
		}
	}
	conn, err := c.Open(t.Context(), "parts")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := []string{"Content-Type: text/plain\r\n\r\n" + string(large[:1<<20]), "\r\nlast"}
	for m, err := range conn.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if len(want) == 0 || string(m) != want[0] {
			t.Fatalf("got a part of %d bytes, with %d parts to come", len(m), len(want))
		}
		want = want[1:]
	}
	if len(want) != 0 {
		t.Errorf("%d parts are missing", len(want))
	}
}

// sharedH2 checks that streams at the same time share a connection.
func sharedH2(t *testing.T, site *site, own *testcert.Authority) {
	t.Parallel()
	st := streamType(site.addrs["TLS"], secure(own.Store()), h2)
	st.HTTP.URL = "/port"
	c := newContext(t, runtime.Options{}, st)
	defer c.Close()
	ports := map[string]int{}
	var mu sync.Mutex
	fetch := func() {
		tr := &trace{}
		s, err := c.NewStream("s", tr.handlers())
		if err != nil {
			t.Error(err)
			return
		}
		s.RequestTx()
		if !tr.Await(func() bool { return tr.Count("DIS")+tr.Count("ARF") > 0 }) || tr.String() != fetched {
			t.Errorf("saw %s (%v)", tr, s.Err())
		}
		mu.Lock()
		ports[string(tr.body)]++
		mu.Unlock()
	}
	fetch() // makes the connection
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(fetch)
	}
	wg.Wait()
	if len(ports) != 1 {
		t.Errorf("nine streams came from ports %v", ports)
	}
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func isStatus(code int) func(error) bool {
	return func(err error) bool { e, ok := errors.AsType[*sshttp.StatusError](err); return ok && e.Code == code }
}

func isRedirect(err error) bool { _, ok := errors.AsType[*sshttp.RedirectError](err); return ok }

func isTLS(err error) bool { _, ok := errors.AsType[*tls.CertificateVerificationError](err); return ok }

// isAlert: the server, or crypto/tls, found no common version.
func isAlert(err error) bool { return err != nil && strings.Contains(err.Error(), "version") }

// isCut: over h1 the body ends early, over h2 the server resets the stream.
func isCut(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || err != nil && strings.Contains(err.Error(), "stream error")
}
