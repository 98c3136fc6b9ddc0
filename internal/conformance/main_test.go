//go:build linux

// Package conformance tests the whole runtime: against nginx, haproxy and mosquitto, under
// network faults, and in long runs.
package conformance

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/leaktest"
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
	// Tests trust only their own authorities.
	os.Setenv("SSL_CERT_FILE", "/nonexistent")
	os.Setenv("SSL_CERT_DIR", "/nonexistent")
	os.Exit(leaktest.Run(m))
}

// goroutines returns the number and stacks of the goroutines, except the calling one and
// those of package testing.
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

// A mark holds the goroutines and files at one time.
type mark struct {
	goroutines  int
	descriptors map[string]string
}

func setMark() mark {
	n, _ := goroutines()
	return mark{n, descriptors()}
}

// leaked describes the goroutines and files added since the mark, or returns "". It waits
// up to 30 s for those that are about to end without a signal.
func (m mark) leaked() string {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
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
			return fmt.Sprintf("%d goroutines, before %d; files %q\n%s", n, m.goroutines, files, stacks)
		}
	}
}

// checkLeaks checks at the end of the test, after all other cleanups, that the test has
// left no goroutine and no open file.
func checkLeaks(t *testing.T) {
	m := setMark()
	t.Cleanup(func() {
		if left := m.leaked(); left != "" {
			t.Errorf("left: %s", left)
		}
	})
}

// A trace records the calls of a stream's handlers. Successive pieces of a message are one
// "rx"; its end is "rx(EOM)".
type trace struct {
	teststream.Trace
	text   string // sent once per connection
	sent   int    // bytes sent in this connection
	noteTx bool   // record "tx"
}

func newTrace(actions teststream.Actions) *trace {
	return &trace{Trace: teststream.Trace{On: actions}}
}

func (tr *trace) handlers() runtime.Handlers {
	h := runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
			if state == runtime.StateConnecting {
				tr.sent = 0
			}
			return tr.State(s, state, arg)
		},
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			tr.Keep(buf)
			switch {
			case flags == runtime.FlagEOM && len(buf) == 0:
				return tr.Note(s, "rx(EOM)")
			case flags&runtime.FlagSOM == 0 && tr.Last() != "rx", flags&^runtime.FlagSOM != 0, len(buf) == 0:
				return tr.Note(s, fmt.Sprintf("rx(%d bytes, flags %d)", len(buf), flags))
			}
			return tr.NoteOnce(s, "rx")
		},
	}
	if tr.text != "" {
		h.Tx = tr.tx
	}
	return h
}

// tx sends the text as one message.
func (tr *trace) tx(s *runtime.Stream, _ uint32, buf []byte) (n int, flags runtime.Flags, r runtime.Result) {
	if tr.sent == len(tr.text) {
		return 0, 0, runtime.TxDontSend
	}
	if tr.noteTx {
		r = tr.NoteOnce(s, "tx")
	}
	if tr.sent == 0 {
		flags = runtime.FlagSOM
	}
	n = copy(buf, tr.text[tr.sent:])
	if tr.sent += n; tr.sent == len(tr.text) {
		flags |= runtime.FlagEOM
	}
	return n, flags, r
}

// ends returns the number of recorded ends of connections and of series of retries.
func (tr *trace) ends() int { return tr.Count("DIS") + tr.Count("ARF") }

// awaitEnds waits for n ends, and reports whether they occurred.
func (tr *trace) awaitEnds(n int) bool { return tr.Await(func() bool { return tr.ends() >= n }) }

// newContext returns a context for streamtypes, without jitter. Any log message fails the
// test.
func newContext(t testing.TB, o runtime.Options, types ...*policy.StreamType) *runtime.Context {
	t.Helper()
	o.Transports = []transport.Transport{h3.New(), mqtt.New(), raw.New(raw.TLS), sshttp.New(), ws.New()}
	return teststream.NewContext(t, o, types...)
}

// A change changes a streamtype.
type change = func(*policy.StreamType)

// newStream returns a stream of "s", or ends the test.
func newStream(t testing.TB, c *runtime.Context, h runtime.Handlers) *runtime.Stream {
	t.Helper()
	s, err := c.NewStream("s", h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// streamType returns a streamtype "s" for a server, with changes.
func streamType(addr netip.AddrPort, changes ...change) *policy.StreamType {
	st := &policy.StreamType{Name: "s", Opportunistic: true, Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{}}
	for _, f := range changes {
		f(st)
	}
	return st
}

// secure turns on TLS with a trust store.
func secure(store *policy.TrustStore) change {
	return func(st *policy.StreamType) { st.TLS, st.TrustStore = true, store }
}

func h2(st *policy.StreamType) { st.Protocol = policy.ProtocolH2 }
