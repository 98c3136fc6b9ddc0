package system_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// fetchPolicy returns the text of a policy: release names it, port is that of the
// server, and more are further streamtypes.
func fetchPolicy(release, port string, more ...string) string {
	stream := func(name, url string) string {
		return fmt.Sprintf(`{ %q: { "endpoint": "127.0.0.1", "port": %s, "protocol": "h1", "http_method": "GET",
			"http_url": %q, "opportunistic": true, "retry": "r", "metadata": [ { "signature": "x-signature:" } ] } }`, name, port, url)
	}
	streams := []string{stream("fetch_policy", "policy.json"), stream("work", "use/"+release), stream("same", "same")}
	return fmt.Sprintf(`{ "release": %q, "schema-version": 1,
		"retry": [ { "r": { "backoff": [ 10 ], "conceal": 1, "svalidping": 30, "svalidhup": 35 } } ],
		"s": [ %s ] }`, release, strings.Join(append(streams, more...), ",\n"))
}

// A policyServer serves whatever a test wants as policy.json, and says "ok" to
// all else.
type policyServer struct {
	*httptest.Server
	serve atomic.Pointer[http.HandlerFunc]
	paths sync.Map // that were asked for
}

func newPolicyServer(t testing.TB) *policyServer {
	s := &policyServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/policy.json" {
			(*s.serve.Load())(w, r)
			return
		}
		s.paths.Store(r.URL.Path, true)
		if strings.HasPrefix(r.URL.Path, "/hold") || r.URL.Path == "/mute" {
			if r.URL.Path != "/mute" {
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
			return
		}
		io.WriteString(w, "ok")
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *policyServer) will(f http.HandlerFunc) { s.serve.Store(&f) }

func (s *policyServer) serves(text string) {
	s.will(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

func (s *policyServer) port() string { return portOf(s.URL) }

func newFetcher(t testing.TB, c *runtime.Context, o system.FetcherOptions) *system.Fetcher {
	t.Helper()
	if o.Load == nil {
		o.Load = sspolicy.Loader("fetched", sspolicy.Options{})
	}
	f, err := system.NewFetcher(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFetch: what is good is set, what is not changes nothing.
func TestFetch(t *testing.T) {
	server := newPolicyServer(t)
	good := fetchPolicy("2", server.port())
	for _, test := range []struct {
		name  string
		serve http.HandlerFunc // nil: good
		o     system.FetcherOptions
		want  error // nil: the new policy is set
		says  string
	}{
		{name: "good"},
		{name: "not found", serve: http.NotFound, want: runtime.ErrNack},
		{name: "no content", serve: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, want: system.ErrRefused},
		{name: "server error with a good body", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, good)
		}, want: runtime.ErrNack},
		{name: "cut off", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			io.WriteString(w, good[:len(good)/2])
		}, want: io.ErrUnexpectedEOF},
		{name: "cut off in a chunk", serve: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, good[:len(good)-1])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, want: io.ErrUnexpectedEOF},
		{name: "cut off without a word", serve: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, good[:len(good)/2])
		}, want: system.ErrRefused},
		{name: "too long", o: system.FetcherOptions{MaxSize: len(good) - 1}, want: runtime.ErrTooLong},
		{name: "just not too long", o: system.FetcherOptions{MaxSize: len(good)}},
		{name: "endless", serve: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
					return
				}
			}
		}, want: runtime.ErrTooLong},
		{name: "not JSON", serve: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, want: system.ErrRefused, says: "[syntax]"},
		{name: "a path", want: system.ErrRefused, says: "[syntax]"},
		{name: "lint", serve: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, strings.Replace(good, `"retry": "r"`, `"retry": "none"`, 1))
		}, want: system.ErrRefused, says: "[undefined-reference]"},
		{name: "too slow", serve: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			o: system.FetcherOptions{Timeout: 50 * time.Millisecond}, want: context.DeadlineExceeded},
		{name: "a trickle", serve: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
		}, o: system.FetcherOptions{Timeout: 50 * time.Millisecond}, want: context.DeadlineExceeded},
		{name: "verified", o: system.FetcherOptions{Verify: func([]byte, *runtime.Response) error { return nil }}},
		{name: "not verified", o: system.FetcherOptions{Verify: func([]byte, *runtime.Response) error { return io.ErrNoProgress }}, want: io.ErrNoProgress},
		{name: "Load says nothing", o: system.FetcherOptions{Load: func([]byte) (*policy.Policy, error) { return nil, nil }}, want: system.ErrRefused},
		{name: "nothing to probe", o: system.FetcherOptions{Probe: "none"}, want: system.ErrRefused, says: `"none"`},
		{name: "probed", o: system.FetcherOptions{Probe: "work"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy.json")
			if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
				t.Fatal(err)
			}
			serve := test.serve
			if test.name == "a path" { // of a file that holds a good policy
				serve = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, file) }
			}
			if serve == nil {
				serve = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, good) }
			}
			server.will(serve)
			old := policy(t, fetchPolicy("1", server.port())).Policy
			c := newContext(t, old)
			told := listen(c, smd.ClassSystemState)
			err := newFetcher(t, c, test.o).Fetch(t.Context())
			if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if refused := errors.Is(err, system.ErrRefused); refused != (errors.Is(test.want, system.ErrRefused) || test.want == io.ErrNoProgress) {
				t.Errorf("refused: %v", refused)
			}
			if test.want == nil {
				if c.Policy().Release != "2" {
					t.Errorf("release %q is in force", c.Policy().Release)
				}
				if m := told.next(); !strings.HasPrefix(m, `{"policy":"updated","ts":`) {
					t.Error(m)
				}
			} else if c.Policy() != old || len(told.more) != 0 {
				t.Errorf("release %q is in force, %d messages", c.Policy().Release, len(told.more))
			}
			release := c.Policy().Release
			if _, err := c.Fetch(t.Context(), "work"); err != nil {
				t.Error(err)
			}
			if _, ok := server.paths.Load("/use/" + release); !ok {
				t.Errorf("/use/%s was not asked for", release)
			}
		})
	}
	if _, err := system.NewFetcher(newContext(t, &policy.Policy{}), system.FetcherOptions{}); err == nil {
		t.Error("a Fetcher without Load")
	}
	if _, err := system.NewFetcher(newContext(t, &policy.Policy{}), system.FetcherOptions{Load: sspolicy.Loader("", sspolicy.Options{}), MaxSize: -1}); err == nil {
		t.Error("a Fetcher with a limit below 0")
	}
}

// TestFetchUnreachable: nobody there, no streamtype, no context.
func TestFetchUnreachable(t *testing.T) {
	c := newContext(t, policy(t, fetchPolicy("1", closedPort(t))).Policy)
	f := newFetcher(t, c, system.FetcherOptions{})
	if err := f.Fetch(t.Context()); !errors.Is(err, runtime.ErrAllRetriesFailed) || c.Policy().Release != "1" {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c.Close()
	if err := f.Fetch(t.Context()); !errors.Is(err, runtime.ErrClosed) {
		t.Error(err)
	}
	c = newContext(t, &policy.Policy{})
	if err := newFetcher(t, c, system.FetcherOptions{}).Fetch(t.Context()); !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Error(err)
	}
}

// A witness is a stream that notes whether it lives.
type witness struct {
	s    *runtime.Stream
	con  chan struct{}
	gone chan error
}

func watch(t *testing.T, c *runtime.Context, streamtype string) *witness {
	t.Helper()
	w := &witness{con: make(chan struct{}, 10), gone: make(chan error, 1)}
	var err error
	w.s, err = c.NewStream(streamtype, runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		switch state {
		case runtime.StateCreating:
			s.Connect()
		case runtime.StateConnected:
			w.con <- struct{}{}
		case runtime.StateDestroying:
			w.gone <- s.Err()
		}
		return runtime.OK
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-w.con
	return w
}

// TestLiveStreams: what happens to streams that are connected, in each case.
func TestLiveStreams(t *testing.T) {
	server := newPolicyServer(t)
	hold := func(n string) string {
		return strings.ReplaceAll(fmt.Sprintf(`{ "held": { "endpoint": "127.0.0.1", "port": PORT, "protocol": "h1", "http_method": "GET", "http_url": "hold" } },
			{ "moved": { "endpoint": "127.0.0.1", "port": PORT, "protocol": "h1", "http_method": "GET", "http_url": "hold/%s" } }`, n), "PORT", server.port())
	}
	dead := fmt.Sprintf(`{ "dead": { "endpoint": "127.0.0.1", "port": %s, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "r" } }`, closedPort(t))
	for _, test := range []struct {
		name   string
		policy string
		o      system.FetcherOptions
		want   error
		lives  bool // "moved" does; "held" always does
	}{
		{"set", fetchPolicy("2", server.port(), hold("2")), system.FetcherOptions{}, nil, false},
		{"set, the same", fetchPolicy("2", server.port(), hold("1")), system.FetcherOptions{}, nil, true},
		{"refused", "{", system.FetcherOptions{}, system.ErrRefused, true},
		{"rolled back", fetchPolicy("2", server.port(), hold("2"), dead), system.FetcherOptions{Probe: "dead"}, system.ErrRolledBack, false},
		{"rolled back in time", fetchPolicy("2", server.port(), hold("2"), strings.Replace(dead, `"retry"`, `"nailed_up": true, "retry"`, 1)),
			system.FetcherOptions{Probe: "dead", ProbeTimeout: 1}, system.ErrRolledBack, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server.serves(test.policy)
			old := policy(t, fetchPolicy("1", server.port(), hold("1"))).Policy
			c := newContext(t, old)
			held, moved := watch(t, c, "held"), watch(t, c, "moved")
			if err := newFetcher(t, c, test.o).Fetch(t.Context()); !errors.Is(err, test.want) {
				t.Fatal(err)
			}
			if (c.Policy() == old) != (test.want != nil) {
				t.Errorf("release %s is in force", c.Policy().Release)
			}
			if !test.lives {
				if err := <-moved.gone; err != runtime.ErrPolicyChanged {
					t.Errorf("moved: %v", err)
				}
			} else if moved.s.State() != runtime.StateConnected {
				t.Errorf("moved: %v", moved.s.State())
			}
			if held.s.State() != runtime.StateConnected {
				t.Errorf("held: %v", held.s.State())
			}
		})
	}
}

// TestRollbackGivesWay: the old policy is not set again over one that another has
// set meanwhile.
func TestRollbackGivesWay(t *testing.T) {
	server := newPolicyServer(t)
	server.serves(fetchPolicy("2", server.port(), fmt.Sprintf(
		`{ "mute": { "endpoint": "127.0.0.1", "port": %s, "protocol": "h1", "http_method": "GET", "http_url": "mute" } }`, server.port())))
	c := newContext(t, policy(t, fetchPolicy("1", server.port())).Policy)
	third := policy(t, fetchPolicy("3", server.port())).Policy
	c.SMD().Register(smd.ClassSystemState, func(smd.Message) {
		if c.Policy() != third {
			c.SetPolicy(third)
		}
	})
	err := newFetcher(t, c, system.FetcherOptions{Probe: "mute", ProbeTimeout: time.Hour}).Fetch(t.Context())
	if !errors.Is(err, system.ErrRolledBack) || !errors.Is(err, runtime.ErrPolicyChanged) && !errors.Is(err, runtime.ErrUnknownStreamType) || c.Policy() != third {
		t.Errorf("%v, release %s", err, c.Policy().Release)
	}
}

// TestKept: the last good policy on disk.
func TestKept(t *testing.T) {
	server := newPolicyServer(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.json")
	first := policy(t, fetchPolicy("1", server.port())).Policy
	o := system.FetcherOptions{File: file, MaxSize: 1 << 16}
	c := newContext(t, first)
	f := newFetcher(t, c, o)
	if err := f.Restore(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	second := fetchPolicy("2", server.port())
	server.serves(second)
	if err := f.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What is refused is not kept.
	server.serves(second[:100])
	if err := f.Fetch(t.Context()); !errors.Is(err, system.ErrRefused) {
		t.Error(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != second {
		t.Errorf("kept: %q, %v", text, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
	// The next start.
	restore := func(o system.FetcherOptions) (string, error) {
		c := newContext(t, first)
		err := newFetcher(t, c, o).Restore()
		return c.Policy().Release, err
	}
	if release, err := restore(o); release != "2" || err != nil {
		t.Errorf("%s, %v", release, err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut off": second[:len(second)/2], "binary": "\x00\xff", "lint": strings.Replace(second, `"r":`, `"q":`, 1),
		"too long": second + strings.Repeat(" ", 1<<16),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if release, err := restore(o); release != "1" || !errors.Is(err, system.ErrRefused) {
			t.Errorf("%s: %s, %v", name, release, err)
		}
	}
	os.WriteFile(file, []byte(second), 0o600)
	o.Verify = func(text []byte, from *runtime.Response) error {
		if from != nil || string(text) != second {
			t.Errorf("verified: %v, %q", from, text)
		}
		return io.ErrNoProgress
	}
	if release, err := restore(o); release != "1" || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("%s, %v", release, err)
	}
	o.Verify, o.File = nil, dir
	if release, err := restore(o); release != "1" || !errors.Is(err, system.ErrRefused) {
		t.Errorf("a folder: %s, %v", release, err)
	}
	// One that can not be written.
	server.serves(second)
	o.File = filepath.Join(dir, "none", "policy.json")
	c = newContext(t, first)
	if err := newFetcher(t, c, o).Fetch(t.Context()); !errors.Is(err, system.ErrNotKept) || c.Policy().Release != "2" {
		t.Errorf("%v, %s", err, c.Policy().Release)
	}
}

// TestSigned: a signature in the metadata of the response.
func TestSigned(t *testing.T) {
	server := newPolicyServer(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := fetchPolicy("2", server.port())
	signature := ed25519.Sign(private, []byte(text))
	o := system.FetcherOptions{Verify: func(text []byte, from *runtime.Response) error {
		encoded, err := from.Metadata("signature")
		if err != nil {
			return err
		}
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err == nil && !ed25519.Verify(public, text, signature) {
			err = errors.New("wrong signature")
		}
		return err
	}}
	for _, test := range []struct {
		text, signature string
		good            bool
	}{
		{text, base64.StdEncoding.EncodeToString(signature), true},
		{text + " ", base64.StdEncoding.EncodeToString(signature), false},
		{text, "", false},
		{text, "?", false},
	} {
		server.will(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Signature", test.signature)
			io.WriteString(w, test.text)
		})
		c := newContext(t, policy(t, fetchPolicy("1", server.port())).Policy)
		err := newFetcher(t, c, o).Fetch(t.Context())
		if (err == nil) != test.good || (c.Policy().Release == "2") != test.good {
			t.Errorf("%q: %v, release %s", test.signature, err, c.Policy().Release)
		}
	}
}

// FuzzFetch: whatever is served, the old policy stays unless the loader accepts
// the text, and then that is in force.
func FuzzFetch(f *testing.F) {
	server := newPolicyServer(f)
	f.Add([]byte(fetchPolicy("2", server.port())))
	f.Add([]byte(""))
	f.Add([]byte("/etc/passwd"))
	f.Add([]byte(`{ "s": [] }`))
	f.Add([]byte(`{ "release": "x", "s": [ { "work": {} } ] }`))
	first := policy(f, fetchPolicy("1", server.port())).Policy
	f.Fuzz(func(t *testing.T, text []byte) {
		server.serves(string(text))
		c := newContext(t, first)
		defer c.Close()
		var loaded *policy.Policy
		fetcher := newFetcher(t, c, system.FetcherOptions{MaxSize: 1 << 16, Load: func(got []byte) (*policy.Policy, error) {
			if !bytes.Equal(got, text) {
				t.Errorf("%q became %q", text, got)
			}
			p, err := sspolicy.Parse("fetched", got, sspolicy.Options{})
			if err != nil {
				return nil, err
			}
			loaded = p.Policy
			return loaded, nil
		}})
		err := fetcher.Fetch(t.Context())
		want := first
		if loaded != nil {
			want = loaded
		}
		if (err == nil) != (loaded != nil) || c.Policy() != want {
			t.Errorf("%v", err)
		}
	})
}

// TestFetchLast: a policy may be the last one: without fetch_policy. The stream
// that has fetched it is gone when it is set.
func TestFetchLast(t *testing.T) {
	server := newPolicyServer(t)
	server.serves(fmt.Sprintf(`{ "release": "2", "s": [ { "work": { "endpoint": "127.0.0.1", "port": %s,
		"protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`, server.port()))
	c := newContext(t, policy(t, fetchPolicy("1", server.port())).Policy)
	f := newFetcher(t, c, system.FetcherOptions{})
	if err := f.Fetch(t.Context()); err != nil || c.Policy().Release != "2" {
		t.Fatalf("%v, release %s", err, c.Policy().Release)
	}
	if err := f.Fetch(t.Context()); !errors.Is(err, runtime.ErrUnknownStreamType) || c.Policy().Release != "2" {
		t.Errorf("%v, release %s", err, c.Policy().Release)
	}
}
