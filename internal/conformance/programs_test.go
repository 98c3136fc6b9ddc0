//go:build linux

package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
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

// A row is a row of the table of sequences.
type row struct {
	name string
	only string // program; "" means both
	at   string // address; "" means "plain" over h1, else "TLS"
	by   string // of "h1 h1+TLS h2"; "" means all
	url  string
	st   change

	tx      string        // body of the request
	chunked bool          // without Content-Length
	times   int           // number of transactions; 0 means 1
	limit   time.Duration // time limit of an attempt
	least   time.Duration // minimum duration

	want   string // sequence
	h2     string // sequence over h2; "" means the same
	cause  func(error) bool
	body   string
	result func(t *testing.T, tr *trace, s *runtime.Stream)
}

// TestPrograms runs the sequences of docs/runtime.md against nginx and haproxy.
func TestPrograms(t *testing.T) {
	checkLeaks(t)
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
		{name: "503 with Retry-After", url: "/503", st: conceal(1), want: "CRE POL CNG UNR POL CNG UNR ARF", cause: isStatus(503), least: time.Second},
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
		// Over h2, haproxy 2.6 ends a truncated body as if it were complete.
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
}

// checkOldTLS checks that the server with TLS 1.1 works with a client that allows that
// version.
func checkOldTLS(t *testing.T, s *site) {
	c, err := tls.Dial("tcp", s.addrs["TLS 1.1"].String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10})
	if err != nil {
		t.Errorf("the server with TLS 1.1 does not accept a client: %v", err)
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
	var waits atomic.Int64 // for retries
	c := newContext(t, runtime.Options{ConnectTimeout: r.limit, Hooks: runtime.Hooks{
		Wait: func(context.Context, *runtime.Stream, time.Duration) { waits.Add(1) },
	}}, st)
	times := max(r.times, 1)
	var done atomic.Bool
	tr := newTrace(nil)
	tr.On = teststream.Actions{
		"DIS": func(s *runtime.Stream) runtime.Result {
			if tr.Count("DIS") < times {
				tr.Keep([]byte{' '})
				s.RequestTx()
			} else {
				done.Store(true)
			}
			return runtime.OK
		},
		"ARF": func(*runtime.Stream) runtime.Result { done.Store(true); return runtime.OK },
	}
	tr.text, tr.noteTx = r.tx, true
	s := newStream(t, c, tr.handlers())
	start := time.Now()
	requests := times
	switch {
	case st.NailedUp:
		requests--
	case r.tx != "" && !r.chunked:
		s.RequestTxLen(uint64(len(r.tx)))
	default:
		s.RequestTx()
	}
	tr.Await(done.Load)
	took := time.Since(start)
	tr.Settle(t, s)
	if polls := tr.Count("POL"); polls != requests+int(waits.Load()) {
		t.Errorf("another attempt follows: %d requests, %d waits, %d POLL", requests, waits.Load(), polls)
	}
	cause := s.Err()
	got := strings.TrimSuffix(tr.String(), " TMO TMO")
	t.Logf("after %v: %v", took.Round(time.Millisecond), cause)
	if got != want {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
	if failed := strings.HasSuffix(want, "ARF") || strings.HasSuffix(want, "rx DIS"); failed != (cause != nil) || r.cause != nil && !r.cause(cause) {
		t.Errorf("the cause is %v (%T)", cause, cause)
	}
	if body := tr.Body(); r.body != "" && body != r.body {
		t.Errorf("a body of %d bytes, want %d", len(body), len(r.body))
	}
	if took < r.least {
		t.Errorf("it took %v, less than Retry-After", took)
	}
	if r.result != nil {
		r.result(t, tr, s)
	}
	teststream.Shutdown(t, c)
	if tr.Count("DES") != 1 {
		t.Errorf("no DES: %s", tr)
	}
}

// again returns a sequence repeated n times.
func again(seq string, n int) string {
	return seq + strings.Repeat(strings.TrimPrefix(seq, "CRE"), n-1)
}

func method(m string) change {
	return func(st *policy.StreamType) {
		st.HTTP.Method = m
		st.Metadata = []policy.Metadata{{Name: "framing", Header: "x-framing:"}}
	}
}

func conceal(n uint16) change {
	return func(st *policy.StreamType) { st.Retry = teststream.Retry(n) }
}

// onePort checks that all requests used one connection.
func onePort(t *testing.T, tr *trace, _ *runtime.Stream) {
	if ports := strings.Fields(tr.Body()); len(slices.Compact(ports)) != 1 {
		t.Errorf("the requests used several connections: %q", tr.Body())
	}
}

// newPorts checks that each request used a new connection.
func newPorts(t *testing.T, tr *trace, _ *runtime.Stream) {
	ports := strings.Fields(tr.Body())
	n := len(ports)
	slices.Sort(ports)
	if len(slices.Compact(ports)) != n {
		t.Errorf("requests shared a connection that the server closed: %q", tr.Body())
	}
}

// framing checks the body length that the server saw.
func framing(want string) func(*testing.T, *trace, *runtime.Stream) {
	return func(t *testing.T, _ *trace, s *runtime.Stream) {
		if got, err := s.Metadata("framing"); got != want {
			t.Errorf("the server saw the length %q, %v; want %q", got, err, want)
		}
	}
}

// multiparts checks a form of two streamtypes, and a multipart response.
func multiparts(t *testing.T, site *site, by string, own *testcert.Authority) {
	t.Parallel()
	var types []*policy.StreamType
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
			t.Fatalf("got a part of %d bytes, with %d parts left", len(m), len(want))
		}
		want = want[1:]
	}
	if len(want) != 0 {
		t.Errorf("%d parts are missing", len(want))
	}
}

// sharedH2 checks that concurrent streams share a connection.
func sharedH2(t *testing.T, site *site, own *testcert.Authority) {
	t.Parallel()
	st := streamType(site.addrs["TLS"], secure(own.Store()), h2)
	st.HTTP.URL = "/port"
	c := newContext(t, runtime.Options{}, st)
	ports := map[string]int{}
	var mu sync.Mutex
	fetch := func() {
		tr := newTrace(nil)
		s, err := c.NewStream("s", tr.handlers())
		if err != nil {
			t.Error(err)
			return
		}
		s.RequestTx()
		if !tr.awaitEnds(1) || tr.String() != fetched {
			t.Errorf("got %s (%v)", tr, s.Err())
		}
		mu.Lock()
		ports[tr.Body()]++
		mu.Unlock()
	}
	fetch() // opens the connection
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

// isAlert reports whether the server or crypto/tls found no common version.
func isAlert(err error) bool { return err != nil && strings.Contains(err.Error(), "version") }

// isCut reports whether the body ended early over h1, or the server reset the stream over
// h2.
func isCut(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || err != nil && strings.Contains(err.Error(), "stream error")
}
