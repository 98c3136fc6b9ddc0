//go:build linux

// Package conformance tests the runtime as a whole: against nginx and haproxy,
// under faults of the network, and over time.
package conformance

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/h3"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

func TestMain(m *testing.M) {
	// Nothing here may be trusted because the machine trusts it.
	os.Setenv("SSL_CERT_FILE", "/nonexistent")
	os.Setenv("SSL_CERT_DIR", "/nonexistent")
	code := m.Run()
	if code == 0 {
		if _, left := goroutines(); left != "" {
			time.Sleep(time.Second)
			if _, left = goroutines(); left != "" {
				fmt.Fprintf(os.Stderr, "goroutines left:\n%s\n", left)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// goroutines returns how many there are beside the one that asks and those of
// package testing, and their stacks.
func goroutines() (n int, stacks string) {
	buf := make([]byte, 64<<10)
	for {
		k := goruntime.Stack(buf, true)
		if k < len(buf) {
			buf = buf[:k]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var left []string
	for i, g := range strings.Split(string(buf), "\n\n") {
		if i > 0 && !strings.Contains(g, "os/signal.") && !strings.Contains(g, "testing.(*M)") &&
			!strings.Contains(g, "testing.(*T).Run") && !strings.Contains(g, "testing.tRunner.func1") {
			left = append(left, g)
		}
	}
	return len(left), strings.Join(left, "\n\n")
}

// descriptors returns the open files of the process, by number.
func descriptors() map[string]string {
	open := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && !strings.Contains(to, "/proc/") && !strings.HasPrefix(to, "anon_inode:[event") {
			open[e.Name()] = to
		}
	}
	return open
}

// A mark is what a part of a test must leave as it has found it.
type mark struct {
	goroutines  int
	descriptors map[string]string
}

func setMark() mark {
	n, _ := goroutines()
	return mark{n, descriptors()}
}

// leaked returns what is there now and was not at the mark, or "". What is
// about to end gets time to do so.
func (m mark) leaked() string {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		n, stacks := goroutines()
		var files []string
		for fd, to := range descriptors() {
			if _, ok := m.descriptors[fd]; !ok {
				files = append(files, fd+" "+to)
			}
		}
		switch {
		case n <= m.goroutines && len(files) == 0:
			return ""
		case time.Now().After(deadline):
			return fmt.Sprintf("%d goroutines where there were %d; files %q\n%s", n, m.goroutines, files, stacks)
		}
	}
}

func (m mark) check(t *testing.T) {
	t.Helper()
	if left := m.leaked(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// A trace records what a stream tells its handlers. A message is one "rx",
// however many pieces it comes in, and an "rx(EOM)".
type trace struct {
	teststream.Trace
	on map[string]func(*runtime.Stream) runtime.Result

	mu   sync.Mutex
	body []byte
	args []uint32 // of each UNR
}

func (tr *trace) handlers() runtime.Handlers {
	tr.On = tr.on
	return runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
			if state == runtime.StateUnreachable {
				tr.mu.Lock()
				tr.args = append(tr.args, arg)
				tr.mu.Unlock()
			}
			return tr.State(s, state, arg)
		},
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			tr.mu.Lock()
			tr.body = append(tr.body, buf...)
			tr.mu.Unlock()
			switch {
			case flags == runtime.FlagEOM && len(buf) == 0:
				return tr.Note(s, "rx(EOM)")
			case flags&runtime.FlagSOM == 0 && tr.Last() != "rx", flags&^runtime.FlagSOM != 0, len(buf) == 0:
				return tr.Note(s, fmt.Sprintf("rx(%d bytes, flags %d)", len(buf), flags))
			}
			return tr.NoteOnce(s, "rx")
		},
	}
}

// newContext returns a context for the streamtypes, without jitter. An illegal
// state, or whatever else the runtime has to log, is an error of the test.
func newContext(t testing.TB, o runtime.Options, types ...*policy.StreamType) *runtime.Context {
	t.Helper()
	o.Transports = []transport.Transport{h3.New(), mqtt.New(), raw.New(), sshttp.New(), ws.New()}
	return teststream.NewContext(t, o, types...)
}

// streamType returns a streamtype "s" for a server, changed by each of change.
func streamType(addr netip.AddrPort, change ...func(*policy.StreamType)) *policy.StreamType {
	st := &policy.StreamType{Name: "s", Opportunistic: true, Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{}}
	for _, f := range change {
		f(st)
	}
	return st
}

// secure turns TLS on, with a trust store.
func secure(store *policy.TrustStore) func(*policy.StreamType) {
	return func(st *policy.StreamType) { st.TLS, st.TrustStore = true, store }
}

func h2(st *policy.StreamType) { st.Protocol = policy.ProtocolH2 }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
