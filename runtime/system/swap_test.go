package system_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/system"
)

// A loadServer serves policies, and counts the requests of streams by release.
type loadServer struct {
	t       *testing.T
	pause   time.Duration // before each answer
	text    atomic.Pointer[string]
	valid   sync.Map // releases that may be in force
	answers sync.Map // number of answers, *atomic.Int64, by release; those to "steady" by ""
}

func (s *loadServer) count(release string) *atomic.Int64 {
	n, _ := s.answers.LoadOrStore(release, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (s *loadServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	release, isWork := strings.CutPrefix(r.URL.Path, "/use/")
	switch {
	case r.URL.Path == "/policy.json":
		io.WriteString(w, *s.text.Load())
		return
	case r.URL.Path == "/probe":
		return
	case isWork:
		if _, ok := s.valid.Load(release); !ok {
			s.t.Errorf("request by release %s, which has never been in force", release)
		}
	case r.URL.Path == "/same":
		release = ""
	default:
		s.t.Errorf("request for %s", r.URL.Path)
	}
	select {
	case <-time.After(s.pause):
	case <-r.Context().Done():
		return
	}
	s.count(release).Add(1)
	io.WriteString(w, release)
}

// TestSwapUnderLoad fetches 100 policies, valid ones and four kinds that must not stay in
// force, while 1,000 streams work: of a streamtype that all policies define equally, and of
// one that differs.
func TestSwapUnderLoad(t *testing.T) { synctest.Test(t, testSwapUnderLoad) }

func testSwapUnderLoad(t *testing.T) {
	const (
		streams = 1000
		moving  = 100 // streams of the streamtype that differs
		swaps   = 100
		maxSize = 4 << 10
	)
	text := func(release, probe string) string {
		return fetchPolicy(release,
			fmt.Sprintf(`{ "probe": { "endpoint": %q, "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "probe", "retry": "r" } }`, probe),
			`{ "steady": { "endpoint": "live", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "same", "retry": "r" } }`)
	}
	server := &loadServer{t: t, pause: 2 * time.Second}
	server.valid.Store("0", true)
	c := newBench(t, compile(t, text("0", "live")), server.ServeHTTP)

	var made, destroyed, lost atomic.Int64
	var stopping atomic.Bool
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
					destroyed.Add(1)
					if stopping.Load() {
						break
					}
					if name == "steady" {
						lost.Add(1)
					}
					if s.Err() != runtime.ErrPolicyChanged {
						t.Errorf("%s: %v", name, s.Err())
					}
					// If the policy has changed again, NewStream fails, and DESTROYING of its
					// stream has made the next one.
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
		teststream.Must(c.NewStream(name, handlers(name)))
	}

	f := c.newFetcher(t, system.FetcherOptions{MaxSize: maxSize, Probes: []string{"probe"}})
	last := "0"
	for i := 1; i <= swaps; i++ {
		release := fmt.Sprint(i)
		var p string
		var want error
		switch i % 5 {
		case 0:
			p = text(release, "live")
			server.valid.Store(release, true)
			last = release
		case 1:
			p, want = strings.Replace(text(release, "live"), `"retry": "r"`, `"retry": "none"`, 1), errLoad
		case 2:
			p = text(release, "live")
			p, want = p[:len(p)*i/swaps], errLoad
		case 3:
			p, want = text(release, "live")+strings.Repeat(" ", maxSize), runtime.ErrTooLong
		case 4: // in force until the probe fails
			p, want = text(release, "dead"), system.ErrRolledBack
			server.valid.Store(release, true)
		}
		server.text.Store(&p)
		if err := f.Fetch(t.Context()); !errors.Is(err, want) {
			t.Fatalf("policy %d: %v, want %v", i, err, want)
		}
		if got := c.Policy().Release; got != last {
			t.Fatalf("after policy %d, release %s is in force", i, got)
		}
		time.Sleep(server.pause / 30) // some requests complete, most do not
	}
	time.Sleep(2 * server.pause)
	if n := server.count(last).Load(); n < moving {
		t.Errorf("%d answers by the last release, want %d", n, moving)
	}
	if n := made.Load() - destroyed.Load(); n != streams {
		t.Errorf("%d streams", n)
	}
	if lost.Load() != 0 {
		t.Errorf("%d streams of the unchanged streamtype were destroyed", lost.Load())
	}
	total := int64(0)
	server.answers.Range(func(_, n any) bool { total += n.(*atomic.Int64).Load(); return true })
	t.Logf("%d policies, %d streams made, %d requests answered", swaps, made.Load(), total)
	stopping.Store(true)
	teststream.Shutdown(t, c.Context)
	if made.Load() != destroyed.Load() {
		t.Errorf("%d streams made, %d destroyed", made.Load(), destroyed.Load())
	}
}
