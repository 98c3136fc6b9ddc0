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
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/signing"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// fetchPolicy returns the text of a policy with a release and further streamtypes.
func fetchPolicy(release string, more ...string) string {
	stream := func(name, url string) string {
		return fmt.Sprintf(`{ %q: { "endpoint": "live", "port": 80, "protocol": "h1", "http_method": "GET",
			"http_url": %q, "opportunistic": true, "retry": "r", "metadata": [ { "signature": "x-signature:" } ] } }`, name, url)
	}
	streams := []string{stream("fetch_policy", "policy.json"), stream("work", "use/"+release), stream("same", "same")}
	return fmt.Sprintf(`{ "release": %q, "schema-version": 1,
		"retry": [ { "r": { "backoff": [ 10 ], "conceal": 1, "svalidping": 30, "svalidhup": 35 } } ],
		"s": [ %s ] }`, release, strings.Join(append(streams, more...), ",\n"))
}

// A policyServer serves policy.json with the handler of a test, and answers other requests
// with "ok".
type policyServer struct {
	policy atomic.Pointer[http.HandlerFunc]
	paths  sync.Map // of the other requests
}

func (s *policyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/policy.json" {
		(*s.policy.Load())(w, r)
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
}

// handle sets the handler of policy.json.
func (s *policyServer) handle(f http.HandlerFunc) { s.policy.Store(&f) }

// serve sets the contents of policy.json.
func (s *policyServer) serve(text string) {
	s.handle(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

// TestFetch checks that valid policies are set, and that anything else changes nothing.
func TestFetch(t *testing.T) {
	good := fetchPolicy("2")
	for _, test := range []struct {
		name  string
		serve http.HandlerFunc // nil serves the good policy
		o     system.FetcherOptions
		want  error // nil means that the policy is set
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
		{name: "cut off at the end of the response", serve: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, good[:len(good)/2])
		}, want: errLoad},
		{name: "too long", o: system.FetcherOptions{MaxSize: len(good) - 1}, want: signing.ErrSize},
		{name: "as long as allowed", o: system.FetcherOptions{MaxSize: len(good)}},
		{name: "endless", serve: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
					return
				}
			}
		}, want: signing.ErrSize},
		{name: "not JSON", serve: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, want: errLoad, says: "[not-a-policy]"},
		{name: "a path", want: errLoad, says: "[not-a-policy]"},
		{name: "lint", serve: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, strings.Replace(good, `"retry": "r"`, `"retry": "none"`, 1))
		}, want: errLoad, says: "[undefined-reference]"},
		{name: "too slow", serve: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			o: system.FetcherOptions{Timeout: 5 * time.Second}, want: signing.ErrSlow},
		{name: "a trickle", serve: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
			}
		}, o: system.FetcherOptions{Timeout: 5 * time.Second}, want: signing.ErrSlow},
		{name: "verified", o: system.FetcherOptions{Verify: func([]byte, *runtime.Response) error { return nil }}},
		{name: "not verified", o: system.FetcherOptions{Verify: func([]byte, *runtime.Response) error { return io.ErrNoProgress }}, want: io.ErrNoProgress},
		{name: "Load returns nil", o: system.FetcherOptions{Load: func([]byte) (*policy.Policy, error) { return nil, nil }}, want: system.ErrRefused},
		{name: "no streamtype to probe", o: system.FetcherOptions{Probes: []string{"none"}}, want: system.ErrRefused, says: `"none"`},
		{name: "probed", o: system.FetcherOptions{Probes: []string{"work"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
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
				var server policyServer
				server.handle(serve)
				old := compile(t, fetchPolicy("1"))
				c := newBench(t, old, server.ServeHTTP)
				messages := c.listen(smd.ClassSystemState)
				err := c.newFetcher(t, test.o).Fetch(t.Context())
				if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.says) {
					t.Fatalf("%v, want %v", err, test.want)
				}
				_, wantRefused := test.want.(signing.Refusal)
				wantRefused = wantRefused || errors.Is(test.want, system.ErrRefused) || test.want == errLoad || test.want == io.ErrNoProgress
				if refused := errors.Is(err, system.ErrRefused); refused != wantRefused {
					t.Errorf("ErrRefused: %v", refused)
				}
				if test.want == nil {
					if c.Policy().Release != "2" {
						t.Errorf("release %q is in force", c.Policy().Release)
					}
					if m := <-messages; !strings.HasPrefix(m, `{"policy":"updated","ts":`) {
						t.Error(m)
					}
				} else if c.Policy() != old || len(messages) != 0 {
					t.Errorf("release %q is in force, %d messages", c.Policy().Release, len(messages))
				}
				release := c.Policy().Release
				if _, err := c.Fetch(t.Context(), "work"); err != nil {
					t.Error(err)
				}
				if _, ok := server.paths.Load("/use/" + release); !ok {
					t.Errorf("no request for /use/%s", release)
				}
			})
		})
	}
	c := newBench(t, &policy.Policy{}, nil).Context
	if _, err := system.NewFetcher(c, system.FetcherOptions{}); err == nil {
		t.Error("a Fetcher without Load")
	}
	if _, err := system.NewFetcher(c, system.FetcherOptions{Load: loadPolicy, MaxSize: -1}); err == nil {
		t.Error("a Fetcher with a limit below 0")
	}
}

// TestFetchUnreachable checks Fetch without a server, a streamtype or a context.
func TestFetchUnreachable(t *testing.T) {
	c := newBench(t, compile(t, fetchPolicy("1")), nil)
	f := c.newFetcher(t, system.FetcherOptions{})
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
	c = newBench(t, &policy.Policy{}, nil)
	if err := c.newFetcher(t, system.FetcherOptions{}).Fetch(t.Context()); !errors.Is(err, runtime.ErrUnknownStreamType) {
		t.Error(err)
	}
}

// A witness is a connected stream.
type witness struct {
	*runtime.Stream
	destroyed chan error // receives Err at DESTROYING
}

// connect returns a new stream when it is connected.
func (b bench) connect(t *testing.T, streamtype string) witness {
	t.Helper()
	connected, destroyed := make(chan struct{}, 10), make(chan error, 1)
	s := teststream.Must(b.NewStream(streamtype, runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		switch state {
		case runtime.StateCreating:
			s.Connect()
		case runtime.StateConnected:
			connected <- struct{}{}
		case runtime.StateDestroying:
			destroyed <- s.Err()
		}
		return runtime.OK
	}}))
	<-connected
	return witness{s, destroyed}
}

// TestLiveStreams checks the effect of each result of Fetch on connected streams: of
// "held", which all policies define equally, and "moved".
func TestLiveStreams(t *testing.T) {
	hold := func(n string) string {
		return fmt.Sprintf(`{ "held": { "endpoint": "live", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "hold" } },
			{ "moved": { "endpoint": "live", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "hold/%s" } }`, n)
	}
	const dead = `{ "dead": { "endpoint": "dead", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "r" } }`
	for _, test := range []struct {
		name   string
		policy string
		o      system.FetcherOptions
		want   error
		lives  bool // "moved" stays connected; "held" always does
	}{
		{"set", fetchPolicy("2", hold("2")), system.FetcherOptions{}, nil, false},
		{"set, the same", fetchPolicy("2", hold("1")), system.FetcherOptions{}, nil, true},
		{"refused", "{", system.FetcherOptions{}, system.ErrRefused, true},
		{"rolled back", fetchPolicy("2", hold("2"), dead), system.FetcherOptions{Probes: []string{"dead"}}, system.ErrRolledBack, false},
		{"rolled back in time", fetchPolicy("2", hold("2"), strings.Replace(dead, `"retry"`, `"nailed_up": true, "retry"`, 1)),
			system.FetcherOptions{Probes: []string{"dead"}, ProbeTimeout: 1}, system.ErrRolledBack, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var server policyServer
			server.serve(test.policy)
			old := compile(t, fetchPolicy("1", hold("1")))
			c := newBench(t, old, server.ServeHTTP)
			held, moved := c.connect(t, "held"), c.connect(t, "moved")
			if err := c.newFetcher(t, test.o).Fetch(t.Context()); !errors.Is(err, test.want) {
				t.Fatal(err)
			}
			if (c.Policy() == old) != (test.want != nil) {
				t.Errorf("release %s is in force", c.Policy().Release)
			}
			if !test.lives {
				if err := <-moved.destroyed; err != runtime.ErrPolicyChanged {
					t.Errorf("moved: %v", err)
				}
			} else if moved.State() != runtime.StateConnected {
				t.Errorf("moved: %v", moved.State())
			}
			if held.State() != runtime.StateConnected {
				t.Errorf("held: %v", held.State())
			}
		})
	}
}

// TestRollbackGivesWay checks that the rollback does not replace a policy that the
// program has set meanwhile.
func TestRollbackGivesWay(t *testing.T) {
	var server policyServer
	server.serve(fetchPolicy("2", `{ "mute": { "endpoint": "live", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "mute" } }`))
	c := newBench(t, compile(t, fetchPolicy("1")), server.ServeHTTP)
	third := compile(t, fetchPolicy("3"))
	c.smd.Register(smd.ClassSystemState, func(smd.Message) {
		if c.Policy() != third {
			c.SetPolicy(third)
		}
	})
	err := c.newFetcher(t, system.FetcherOptions{Probes: []string{"mute"}, ProbeTimeout: time.Hour}).Fetch(t.Context())
	if !errors.Is(err, system.ErrRolledBack) || !errors.Is(err, runtime.ErrPolicyChanged) && !errors.Is(err, runtime.ErrUnknownStreamType) || c.Policy() != third {
		t.Errorf("%v, release %s", err, c.Policy().Release)
	}
}

// TestFile checks that the last valid policy is kept in a file, and restored.
func TestFile(t *testing.T) {
	var server policyServer
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.json")
	first := compile(t, fetchPolicy("1"))
	o := system.FetcherOptions{File: file, MaxSize: 1 << 16}
	c := newBench(t, first, server.ServeHTTP)
	f := c.newFetcher(t, o)
	if err := f.Restore(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	second := fetchPolicy("2")
	server.serve(second)
	if err := f.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A refused policy is not kept.
	server.serve(second[:100])
	if err := f.Fetch(t.Context()); !errors.Is(err, system.ErrRefused) {
		t.Error(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != second {
		t.Errorf("kept: %q, %v", text, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
	// The next start of the program.
	restore := func(o system.FetcherOptions) (string, error) {
		c := newBench(t, first, nil)
		err := c.newFetcher(t, o).Restore()
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
	// A file that cannot be written.
	server.serve(second)
	o.File = filepath.Join(dir, "none", "policy.json")
	c = newBench(t, first, server.ServeHTTP)
	if err := c.newFetcher(t, o).Fetch(t.Context()); !errors.Is(err, system.ErrNotKept) || c.Policy().Release != "2" {
		t.Errorf("%v, %s", err, c.Policy().Release)
	}
}

// TestSigned checks a signature in the metadata of the response.
func TestSigned(t *testing.T) {
	var server policyServer
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := fetchPolicy("2")
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
		server.handle(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Signature", test.signature)
			io.WriteString(w, test.text)
		})
		c := newBench(t, compile(t, fetchPolicy("1")), server.ServeHTTP)
		err := c.newFetcher(t, o).Fetch(t.Context())
		if (err == nil) != test.good || (c.Policy().Release == "2") != test.good {
			t.Errorf("%q: %v, release %s", test.signature, err, c.Policy().Release)
		}
	}
}

// FuzzFetch checks that any text that Load accepts is in force, and that the old policy
// stays otherwise.
func FuzzFetch(f *testing.F) {
	var server policyServer
	f.Add([]byte(fetchPolicy("2")))
	f.Add([]byte(""))
	f.Add([]byte("/etc/passwd"))
	f.Add([]byte(`{ "s": [] }`))
	f.Add([]byte(`{ "release": "x", "s": [ { "work": {} } ] }`))
	first := compile(f, fetchPolicy("1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		server.serve(string(text))
		c := newBench(t, first, server.ServeHTTP)
		var loaded *policy.Policy
		fetcher := c.newFetcher(t, system.FetcherOptions{MaxSize: 1 << 16, Load: func(got []byte) (*policy.Policy, error) {
			if !bytes.Equal(got, text) {
				t.Errorf("%q became %q", text, got)
			}
			var err error
			loaded, err = loadPolicy(got)
			return loaded, err
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

// TestFetchLast checks a policy without fetch_policy.
func TestFetchLast(t *testing.T) {
	var server policyServer
	server.serve(`{ "release": "2", "s": [ { "work": { "endpoint": "live", "port": 80,
		"protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`)
	c := newBench(t, compile(t, fetchPolicy("1")), server.ServeHTTP)
	f := c.newFetcher(t, system.FetcherOptions{})
	if err := f.Fetch(t.Context()); err != nil || c.Policy().Release != "2" {
		t.Fatalf("%v, release %s", err, c.Policy().Release)
	}
	if err := f.Fetch(t.Context()); !errors.Is(err, runtime.ErrUnknownStreamType) || c.Policy().Release != "2" {
		t.Errorf("%v, release %s", err, c.Policy().Release)
	}
}
