package system_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// TestSwapUnderLoad: 1,000 streams at work, of a streamtype that stays the same
// and one that each policy has of its own, while 100 policies are fetched: good
// ones, and four kinds that must not stay in force.
func TestSwapUnderLoad(t *testing.T) {
	const (
		streams = 1000
		moving  = 100 // of them of the streamtype that changes
		swaps   = 100
		pause   = 2 * time.Second // that an answer takes
		maxSize = 4 << 10
	)
	var (
		valid    sync.Map // releases that may be in force
		answers  sync.Map // by release: *atomic.Int64
		same     atomic.Int64
		serve    atomic.Pointer[string]
		stopping atomic.Bool
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		release, isWork := strings.CutPrefix(r.URL.Path, "/use/")
		switch {
		case r.URL.Path == "/policy.json":
			io.WriteString(w, *serve.Load())
			return
		case r.URL.Path == "/probe":
			return
		case isWork:
			if _, ok := valid.Load(release); !ok {
				t.Errorf("a request by release %s, which has never been in force", release)
			}
		case r.URL.Path == "/same":
		default:
			t.Errorf("a request for %s", r.URL.Path)
		}
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
			return
		}
		if isWork {
			n, _ := answers.LoadOrStore(release, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
		} else {
			same.Add(1)
		}
		io.WriteString(w, release)
	}))
	defer server.Close()
	live, dead := portOf(server.URL), closedPort(t)
	text := func(release, port string) string {
		return fetchPolicy(release, live,
			fmt.Sprintf(`{ "probe": { "endpoint": "127.0.0.1", "port": %s, "protocol": "h1", "http_method": "GET", "http_url": "probe", "retry": "r" } }`, port),
			fmt.Sprintf(`{ "steady": { "endpoint": "127.0.0.1", "port": %s, "protocol": "h1", "http_method": "GET", "http_url": "same", "retry": "r" } }`, live))
	}
	valid.Store("0", true)
	c := newContext(t, policy(t, text("0", live)).Policy)

	var made, gone, lost atomic.Int64
	var handlers func(name string) runtime.Handlers
	handlers = func(name string) runtime.Handlers {
		return runtime.Handlers{
			State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				switch state {
				case runtime.StateCreating:
					made.Add(1)
					s.RequestTx()
				case runtime.StateDisconnected:
					s.RequestTx()
				case runtime.StateUnreachable:
					if name == "steady" && !stopping.Load() {
						t.Errorf("steady: %v", s.Err())
					}
				case runtime.StateDestroying:
					gone.Add(1)
					if stopping.Load() {
						break
					}
					if name == "steady" {
						lost.Add(1)
					}
					if s.Err() != runtime.ErrPolicyChanged {
						t.Errorf("%s: %v", name, s.Err())
					}
					// When it fails of a policy that has changed again, DESTROYING of the
					// new one has been here too.
					if _, err := c.NewStream(name, handlers(name)); err != nil && !errors.Is(err, runtime.ErrPolicyChanged) && !errors.Is(err, runtime.ErrClosed) {
						t.Errorf("%s: %v", name, err)
					}
				}
				return runtime.OK
			},
			Rx: func(s *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
				if want := s.StreamType().HTTP.URL; name == "work" && len(buf) > 0 && "use/"+string(buf) != want {
					t.Errorf("%s was answered as %s", want, buf)
				}
				return runtime.OK
			},
		}
	}
	for i := range streams {
		name := "steady"
		if i < moving {
			name = "work"
		}
		if _, err := c.NewStream(name, handlers(name)); err != nil {
			t.Fatal(err)
		}
	}

	f := newFetcher(t, c, system.FetcherOptions{MaxSize: maxSize, Probe: "probe", Load: sspolicy.Loader("fetched", sspolicy.Options{})})
	last, start := "0", time.Now()
	for i := 1; i <= swaps; i++ {
		release := fmt.Sprint(i)
		var p string
		var want error
		switch i % 5 {
		case 0:
			p = text(release, live)
			valid.Store(release, true)
			last = release
		case 1:
			p, want = strings.Replace(text(release, live), `"retry": "r"`, `"retry": "none"`, 1), system.ErrRefused
		case 2:
			p = text(release, live)
			p, want = p[:len(p)*i/swaps], system.ErrRefused
		case 3:
			p, want = text(release, live)+strings.Repeat(" ", maxSize), runtime.ErrTooLong
		case 4: // in force until it is found that the probe can not be reached
			p, want = text(release, dead), system.ErrRolledBack
			valid.Store(release, true)
		}
		serve.Store(&p)
		if err := f.Fetch(t.Context()); !errors.Is(err, want) {
			t.Fatalf("policy %d: %v, want %v", i, err, want)
		}
		if got := c.Policy().Release; got != last {
			t.Fatalf("after policy %d, release %s is in force", i, got)
		}
	}
	took := time.Since(start)
	// All are at work by the last good one.
	for {
		if n, ok := answers.Load(last); ok && n.(*atomic.Int64).Load() >= moving || t.Failed() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := made.Load() - gone.Load(); n != streams {
		t.Errorf("%d streams", n)
	}
	if lost.Load() != 0 {
		t.Errorf("%d streams were destroyed, though nothing has changed for them", lost.Load())
	}
	total := same.Load()
	answers.Range(func(_, n any) bool { total += n.(*atomic.Int64).Load(); return true })
	t.Logf("%d policies in %v; %d streams made; %d requests answered", swaps, took.Round(time.Millisecond), made.Load(), total)
	stopping.Store(true)
	c.Close()
	if made.Load() != gone.Load() {
		t.Errorf("%d streams made, %d gone", made.Load(), gone.Load())
	}
}
