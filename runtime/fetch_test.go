package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// serve returns a context whose streamtypes "get" and "post", with some metadata, talk to
// a server on loopback.
func serve(t *testing.T, h http.HandlerFunc, change func(*policy.StreamType)) *runtime.Context {
	t.Helper()
	ln := testserver.Listen(t)
	testserver.HTTP(t, ln, &http.Server{Handler: h})
	return contextFor(t, runtime.Options{}, "http://"+ln.Addr().String()+"/x", change)
}

// serveInProcess is serve without loopback, for bubbles of package synctest.
func serveInProcess(t *testing.T, h http.HandlerFunc, change func(*policy.StreamType)) *runtime.Context {
	t.Helper()
	var n testserver.Network
	n.Serve(t, "h:80", h)
	return contextFor(t, runtime.Options{DialContext: n.DialContext}, "http://h/x", change)
}

// contextFor returns a context whose streamtypes "get" and "post" have an endpoint.
func contextFor(t *testing.T, o runtime.Options, endpoint string, change func(*policy.StreamType)) *runtime.Context {
	t.Helper()
	p := &policy.Policy{}
	for _, method := range []string{"GET", "POST"} {
		st := &policy.StreamType{
			Name: strings.ToLower(method), Protocol: policy.ProtocolH1,
			Endpoint: endpoint, Opportunistic: true,
			Metadata: []policy.Metadata{{Name: "in", Header: "x-in"}, {Name: "out", Header: "x-out"}, {Name: "free"}},
			HTTP:     &policy.HTTP{Method: method, RespMap: []policy.StatusState{{Status: 418, State: 1418}}},
		}
		if change != nil {
			change(st)
		}
		p.StreamTypes = append(p.StreamTypes, st)
	}
	o.Transports = []transport.Transport{sshttp.New()}
	return teststream.NewPolicyContext(t, o, p)
}

// echo answers with the body, method and length of the request.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Out", "out of "+r.Header.Get("X-In"))
	body, _ := io.ReadAll(r.Body)
	w.Write(body)
	fmt.Fprintf(w, " (%s, %d)", r.Method, r.ContentLength)
}

func TestFetch(t *testing.T) {
	c := serve(t, echo, nil)
	big := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	for _, tt := range []struct {
		name, streamtype string
		o                []runtime.CallOption
		want             string
	}{
		{"get", "get", nil, " (GET, 0)"},
		{"no body", "post", nil, " (POST, 0)"},
		{"empty body", "post", []runtime.CallOption{runtime.WithBody(nil)}, " (POST, 0)"},
		{"bytes", "post", []runtime.CallOption{runtime.WithBody([]byte("abc"))}, "abc (POST, 3)"},
		{"many bytes", "post", []runtime.CallOption{runtime.WithBody(big)}, string(big) + " (POST, 320000)"},
		{"reader", "post", []runtime.CallOption{runtime.WithBodyReader(strings.NewReader("abc"), 3)}, "abc (POST, 3)"},
		{"reader without length", "post", []runtime.CallOption{runtime.WithBodyReader(bytes.NewReader(big), -1)}, string(big) + " (POST, -1)"},
		{"empty reader", "post", []runtime.CallOption{runtime.WithBodyReader(strings.NewReader(""), -1)}, " (POST, -1)"},
		{"reader longer than its length", "post", []runtime.CallOption{runtime.WithBodyReader(strings.NewReader("abcdef"), 3)}, "abc (POST, 3)"},
		{"pipe", "post", []runtime.CallOption{runtime.WithBodyReader(pipe(t, "abc"), -1)}, "abc (POST, -1)"},
		{"reader by bytes", "post", []runtime.CallOption{runtime.WithBodyReader(io.MultiReader(strings.NewReader("a"), strings.NewReader("b")), -1)}, "ab (POST, -1)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := c.Fetch(t.Context(), tt.streamtype, append(tt.o, runtime.WithMetadata("in", "here"))...)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(r.Body); got != tt.want || r.Status != 200 {
				t.Errorf("got status %d, %d bytes, %.80q", r.Status, len(got), got)
			}
			if v, err := r.Metadata("out"); v != "out of here" || err != nil {
				t.Errorf("metadata out: %q, %v", v, err)
			}
			if v, err := r.Metadata("in"); v != "here" || err != nil {
				t.Errorf("metadata in: %q, %v", v, err)
			}
			if _, err := r.Metadata("none"); !errors.Is(err, runtime.ErrUnknownMetadata) {
				t.Errorf("unknown metadata: %v", err)
			}
		})
	}
}

func TestFetchNack(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Out", "why")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "short and stout")
	}, nil)
	r, err := c.Fetch(t.Context(), "get")
	nack, ok := errors.AsType[*runtime.NackError](err)
	if r != nil || !errors.Is(err, runtime.ErrNack) || !ok {
		t.Fatal(r, err)
	}
	if nack.Status != 418 || nack.State != 1418 || nack.Response == nil || nack.Response.Status != 418 || nack.Response.State != 1418 || string(nack.Response.Body) != "short and stout" {
		t.Errorf("%+v", nack)
	}
	if v, _ := nack.Response.Metadata("out"); v != "why" {
		t.Errorf("metadata %q", v)
	}
	if want := `sspolicy: fetch "get": the peer did not accept: status 418: USER_1418`; err.Error() != want {
		t.Errorf("the error says %q", err)
	}
}

// refusing returns the URL of a port without a listener.
func refusing(t *testing.T) string { return "http://" + testserver.Refused(t).String() + "/" }

// cutShort sends a shorter body than it announces.
func cutShort(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	io.WriteString(w, "some")
	w.(http.Flusher).Flush()
	conn, _, _ := http.NewResponseController(w).Hijack()
	conn.Close()
}

func TestFetchErrors(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		c := contextFor(t, runtime.Options{}, refusing(t), func(st *policy.StreamType) {
			st.Retry = &policy.Retry{Backoff: ms(1), Conceal: 2}
		})
		_, err := c.Fetch(t.Context(), "get")
		if !errors.Is(err, runtime.ErrAllRetriesFailed) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		_, err = c.Open(t.Context(), "post")
		if !errors.Is(err, runtime.ErrAllRetriesFailed) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
	for _, opportunistic := range []bool{true, false} {
		t.Run(fmt.Sprintf("cut short, opportunistic %v", opportunistic), func(t *testing.T) {
			c := serve(t, cutShort, func(st *policy.StreamType) {
				st.Opportunistic = opportunistic
				st.Retry = &policy.Retry{Backoff: ms(1), Conceal: 65535}
			})
			if _, err := c.Fetch(t.Context(), "get"); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			conn, err := c.Open(t.Context(), "get")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); string(got) != "some" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	t.Run("bad requests", func(t *testing.T) {
		c := serve(t, echo, nil)
		for _, tt := range []struct {
			streamtype string
			o          runtime.CallOption
			want       error
		}{
			{"none", nil, runtime.ErrUnknownStreamType},
			{"get", runtime.WithMetadata("none", ""), runtime.ErrUnknownMetadata},
			{"get", runtime.WithMetadata("in", "a\r\nb"), runtime.ErrMetadataValue},
			{"get", runtime.WithBody([]byte("x")), runtime.ErrNoBody},
			{"get", runtime.WithLimit(3), runtime.ErrTooLong},
			{"post", runtime.WithBodyReader(strings.NewReader("ab"), 3), io.ErrUnexpectedEOF},
			{"post", runtime.WithBodyReader(io.MultiReader(strings.NewReader("ab"), broken{}), -1), errFake},
		} {
			var o []runtime.CallOption
			if tt.o != nil {
				o = append(o, tt.o)
			}
			if r, err := c.Fetch(t.Context(), tt.streamtype, o...); r != nil || !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.streamtype, err, tt.want)
			}
		}
		if r, err := c.Fetch(t.Context(), "get", runtime.WithLimit(8)); err == nil {
			t.Errorf("9 bytes in a limit of 8: %q", r.Body)
		}
		for _, n := range []int{9, -1} {
			if _, err := c.Fetch(t.Context(), "get", runtime.WithLimit(n)); err != nil {
				t.Errorf("limit %d: %v", n, err)
			}
		}
	})
	t.Run("the policy's timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := serveInProcess(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
				func(st *policy.StreamType) { st.Timeout = 7 * time.Second })
			start := time.Now()
			if _, err := c.Fetch(t.Context(), "get"); !errors.Is(err, runtime.ErrTimeout) || time.Since(start) != 7*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("a closed context", func(t *testing.T) {
		requested := make(chan struct{})
		c := serve(t, func(_ http.ResponseWriter, r *http.Request) { close(requested); <-r.Context().Done() }, nil)
		go func() { <-requested; c.Close() }()
		if _, err := c.Fetch(t.Context(), "get"); !errors.Is(err, runtime.ErrClosed) {
			t.Error(err)
		}
		if _, err := c.Fetch(t.Context(), "get"); !errors.Is(err, runtime.ErrClosed) {
			t.Error(err)
		}
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errFake }

// TestFetchContext cancels the context at each stage, and checks that Fetch returns and
// that the server sees the end.
func TestFetchContext(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    func(w http.ResponseWriter, r *http.Request, reached func())
		o    runtime.CallOption
	}{
		{"before the answer", func(w http.ResponseWriter, r *http.Request, reached func()) {
			reached()
			<-r.Context().Done()
		}, nil},
		{"in the answer", func(w http.ResponseWriter, r *http.Request, reached func()) {
			io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			reached()
			<-r.Context().Done()
		}, nil},
		{"in the body", func(w http.ResponseWriter, r *http.Request, reached func()) {
			io.ReadFull(r.Body, make([]byte, 2))
			reached()
			io.Copy(io.Discard, r.Body)
		}, runtime.WithBodyReader(io.MultiReader(strings.NewReader("ab"), stuck{t.Context()}), -1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			seen := make(chan struct{})
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(seen)
				tt.h(w, r, func() { cancel(errFake) })
			}, nil)
			streamtype, o := "get", []runtime.CallOption(nil)
			if tt.o != nil {
				streamtype, o = "post", append(o, tt.o)
			}
			if _, err := c.Fetch(ctx, streamtype, o...); !errors.Is(err, context.Canceled) || !errors.Is(err, errFake) {
				t.Error(err)
			}
			<-seen
		})
	}
	t.Run("in a wait for a retry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContext(t, policy.StreamType{
				Protocol: policy.ProtocolH1, Retry: &policy.Retry{Backoff: []time.Duration{time.Hour}, Conceal: 65535},
			}, unreachable)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			for range 2 {
				if _, err := c.Fetch(ctx, "s"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			}
		})
	})
}

// stuck is a reader that does not return until the test ends.
type stuck struct{ ctx context.Context }

func (s stuck) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, io.EOF }

// TestFetchRetry checks that each attempt sends the whole body, or that there is no other
// attempt if the body cannot be read again.
func TestFetchRetry(t *testing.T) {
	onlySeeker := struct{ io.ReadSeeker }{strings.NewReader("ab-body")}
	onlySeeker.Seek(3, io.SeekStart)
	for _, tt := range []struct {
		name string
		o    runtime.CallOption
		want error
	}{
		{"bytes", runtime.WithBody([]byte("body")), nil},
		{"seeker, from its offset", runtime.WithBodyReader(onlySeeker, 4), nil},
		{"seeker without length", runtime.WithBodyReader(strings.NewReader("body"), -1), nil},
		{"reader", runtime.WithBodyReader(io.MultiReader(strings.NewReader("body")), 4), runtime.ErrBodySpent},
		{"pipe", runtime.WithBodyReader(pipe(t, "body"), 4), runtime.ErrBodySpent},
		{"broken seeker", runtime.WithBodyReader(struct {
			io.Reader
			io.Seeker
		}{strings.NewReader("body"), badSeeker{}}, 4), errFake},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var n atomic.Int32
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if n.Add(1) < 3 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				w.Write(b)
			}, func(st *policy.StreamType) { st.Retry = &policy.Retry{Backoff: ms(1), Conceal: 5} })
			r, err := c.Fetch(t.Context(), "post", tt.o)
			switch {
			case !errors.Is(err, tt.want):
				t.Error(err)
			case err == nil && (string(r.Body) != "body" || n.Load() != 3):
				t.Errorf("%q after %d attempts", r.Body, n.Load())
			case tt.want == runtime.ErrBodySpent && n.Load() != 1:
				t.Errorf("%d attempts", n.Load())
			}
		})
	}
}

type badSeeker struct{}

func (badSeeker) Seek(_ int64, whence int) (int64, error) {
	if whence == io.SeekCurrent {
		return 0, nil
	}
	return 0, errFake
}

// pipe returns a file that has Seek but cannot seek.
func pipe(t *testing.T, text string) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	io.WriteString(w, text)
	w.Close()
	return r
}

// TestFetchUnreadBody checks that a body is not read before the transport requests it.
func TestFetchUnreadBody(t *testing.T) {
	c := contextFor(t, runtime.Options{}, refusing(t), func(st *policy.StreamType) {
		st.Retry = &policy.Retry{Backoff: ms(1), Conceal: 2}
	})
	r := strings.NewReader("body")
	if _, err := c.Fetch(t.Context(), "post", runtime.WithBodyReader(io.MultiReader(r), 4)); !errors.Is(err, runtime.ErrAllRetriesFailed) {
		t.Error(err)
	}
	if r.Len() != 4 {
		t.Errorf("%d bytes are left", r.Len())
	}
}

// TestFetchLongReader checks that no more than the announced length of a reader is sent.
func TestFetchLongReader(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		c := serve(t, echo, func(st *policy.StreamType) { st.HTTP.NoContentLength = chunked })
		a, err := c.Fetch(t.Context(), "post", runtime.WithBodyReader(strings.NewReader("0123456789"), 4))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(a.Body), "0123 (") {
			t.Errorf("chunked %v: %s", chunked, a.Body)
		}
	}
}

// TestFetchNailedUp checks Fetch with a stream that connects before the request.
func TestFetchNailedUp(t *testing.T) {
	c := serve(t, echo, func(st *policy.StreamType) { st.NailedUp = true })
	for range 20 {
		r, err := c.Fetch(t.Context(), "post", runtime.WithBody([]byte("abc")))
		if err != nil || string(r.Body) != "abc (POST, 3)" {
			t.Fatal(r, err)
		}
	}
}

func TestFetchMany(t *testing.T) {
	c := serve(t, echo, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				text := fmt.Sprint(i, j)
				r, err := c.Fetch(t.Context(), "post", runtime.WithBody([]byte(text)))
				if want := fmt.Sprintf("%s (POST, %d)", text, len(text)); err != nil || string(r.Body) != want {
					t.Error(r, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestFetchRaw checks that, without HTTP, Fetch ends with the acknowledgement or the end
// of the connection.
func TestFetchRaw(t *testing.T) {
	ack := func(good bool) run {
		return func(ctx context.Context, l transport.Link) error {
			if err := l.Connected(); err != nil {
				return err
			}
			if err := l.Ack(good); err != nil {
				return err
			}
			return hang(ctx, l)
		}
	}
	done := func(_ context.Context, l transport.Link) error {
		if err := l.Connected(); err != nil {
			return err
		}
		if err := l.Rx([]byte("all"), 0); err != nil {
			return err
		}
		return io.EOF
	}
	for name, tt := range map[string]struct {
		run  run
		body string
		want error
	}{
		"acked": {ack(true), "", nil}, "nacked": {ack(false), "", runtime.ErrNack}, "done": {done, "all", nil},
		"lost": {lose, "", io.ErrUnexpectedEOF}, "unreachable": {unreachable, "", runtime.ErrAllRetriesFailed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, tt.run)
				r, err := c.Fetch(t.Context(), "s")
				if !errors.Is(err, tt.want) || err == nil && string(r.Body) != tt.body {
					t.Error(r, err)
				}
			})
		})
	}
}

// TestFetchAnyMoment cancels contexts at any moment of Fetch and Open. TestMain finds
// leaked goroutines.
func TestFetchAnyMoment(t *testing.T) {
	c := serve(t, echo, func(st *policy.StreamType) { st.Retry = &policy.Retry{Backoff: ms(1), Conceal: 3} })
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j*(i+1))*5*time.Microsecond)
				body := runtime.WithBodyReader(strings.NewReader("body"), -1)
				if j%2 == 0 {
					if r, err := c.Fetch(ctx, "post", body); err == nil && string(r.Body) != "body (POST, -1)" || err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Error(r, err)
					}
				} else if conn, err := c.Open(ctx, "post", body); err == nil {
					if got, err := io.ReadAll(conn); err == nil && string(got) != "body (POST, -1)" || err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%q, %v", got, err)
					}
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

func TestMetadataOptions(t *testing.T) {
	c := newContext(t, policy.StreamType{
		Protocol: policy.ProtocolRaw, Metadata: []policy.Metadata{{Name: "a"}, {Name: "b"}},
	}, unreachable)
	s := newStream(t, c, runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		if v, _ := s.Metadata("a"); state == runtime.StateCreating && v != "1" {
			t.Errorf("a is %q in CREATING", v)
		}
		return runtime.OK
	}}, runtime.WithMetadata("a", "1"), runtime.WithFields("b", "2"))
	if err := s.SetAll(runtime.WithFields("a", "", "b", "3")); err != nil {
		t.Error(err)
	}
	a, _ := s.Metadata("a")
	b, _ := s.Metadata("b")
	if a != "1" || b != "3" {
		t.Errorf("a is %q, b is %q", a, b)
	}
	if err := s.SetAll(runtime.WithMetadata("a", "")); err != nil {
		t.Error(err)
	}
	if a, _ := s.Metadata("a"); a != "" {
		t.Errorf("a is %q", a)
	}
	if err := s.SetAll(runtime.WithFields("a")); err == nil {
		t.Error("SetAll accepts a name without a value")
	}
	if _, err := c.NewStream("s", runtime.Handlers{}, runtime.WithMetadata("none", "")); !errors.Is(err, runtime.ErrUnknownMetadata) {
		t.Error(err)
	}
}
