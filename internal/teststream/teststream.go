// Package teststream holds what the tests of streams have in common: a record of
// what a stream tells its handlers, and contexts that must have nothing to log.
package teststream

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

var names = map[runtime.State]string{
	runtime.StateCreating: "CRE", runtime.StateDisconnected: "DIS", runtime.StateUnreachable: "UNR",
	runtime.StateConnected: "CON", runtime.StateConnecting: "CNG", runtime.StateDestroying: "DES",
	runtime.StatePoll: "POL", runtime.StateAllRetriesFailed: "ARF", runtime.StateQoSAckRemote: "ACK",
	runtime.StateQoSNackRemote: "NAK", runtime.StateTimeout: "TMO",
}

// Name returns a state's short name, or that of lws if it has none.
func Name(state runtime.State) string {
	if name := names[state]; name != "" {
		return name
	}
	return state.String()
}

// A Trace records what a stream tells its handlers, as events. It has no state
// before its first use, and may be used in a bubble of synctest.
type Trace struct {
	On     map[string]func(*runtime.Stream) runtime.Result // what the handler does at an event
	Prefix func() string                                   // stands before each event, if not nil

	mu      sync.Mutex
	events  []string
	inside  bool
	changed chan struct{} // closed at the next event, if not nil
}

// Note records an event, and does what On has for it. Handlers that run at the
// same time are a "CONCURRENT".
func (tr *Trace) Note(s *runtime.Stream, event string) runtime.Result {
	return tr.note(s, event, false)
}

// NoteOnce is Note of an event that is recorded once, however often it comes in
// a row.
func (tr *Trace) NoteOnce(s *runtime.Stream, event string) runtime.Result {
	return tr.note(s, event, true)
}

func (tr *Trace) note(s *runtime.Stream, event string, once bool) runtime.Result {
	tr.mu.Lock()
	if tr.inside {
		tr.events = append(tr.events, "CONCURRENT")
	}
	tr.inside = true
	e := event
	if tr.Prefix != nil {
		e = tr.Prefix() + event
	}
	if !once || len(tr.events) == 0 || tr.events[len(tr.events)-1] != e {
		tr.events = append(tr.events, e)
	}
	tr.mu.Unlock()
	r := runtime.OK
	if f := tr.On[event]; f != nil {
		r = f(s)
	}
	tr.mu.Lock()
	tr.inside = false
	if tr.changed != nil {
		close(tr.changed)
		tr.changed = nil
	}
	tr.mu.Unlock()
	return r
}

// State is a handler of states. An event is the name of one.
func (tr *Trace) State(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
	return tr.Note(s, Name(state))
}

// Events returns what was recorded.
func (tr *Trace) Events() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.events)
}

func (tr *Trace) String() string { return strings.Join(tr.Events(), " ") }

// Count returns how often an event was recorded.
func (tr *Trace) Count(event string) (n int) {
	for _, e := range tr.Events() {
		if e == event {
			n++
		}
	}
	return n
}

// Last returns the last event, or "".
func (tr *Trace) Last() string {
	all := tr.Events()
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// Reset forgets what was recorded.
func (tr *Trace) Reset() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.events = nil
}

// Await asks done after each event, and waits until it says so, for 30 s at the
// most. It reports whether it did.
func (tr *Trace) Await(done func() bool) bool {
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		tr.mu.Lock()
		if tr.changed == nil {
			tr.changed = make(chan struct{})
		}
		changed := tr.changed
		tr.mu.Unlock()
		if done() {
			return true
		}
		select {
		case <-changed:
		case <-limit.C:
			return false
		}
	}
}

// AwaitEnd waits until the events end in one of these. It ends the test if they
// do not come to that.
func (tr *Trace) AwaitEnd(t testing.TB, events ...string) {
	t.Helper()
	ends := func() bool {
		got := tr.String()
		return slices.ContainsFunc(events, func(e string) bool { return strings.HasSuffix(got, e) })
	}
	if !tr.Await(ends) {
		t.Fatalf("waited in vain for %v; saw %s", events, tr)
	}
}

// Logger returns a logger for a runtime that has no reason to log anything: each
// line is an error of the test.
func Logger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(complaints{t}, nil)) }

type complaints struct{ t testing.TB }

func (c complaints) Write(line []byte) (int, error) {
	c.t.Errorf("the runtime logged: %s", line)
	return len(line), nil
}

// NewContext returns a context for streamtypes, without jitter, that is closed
// at the end of the test. If the options have no logger, it may log nothing.
func NewContext(t testing.TB, o runtime.Options, types ...*policy.StreamType) *runtime.Context {
	t.Helper()
	o.Jitter = func() uint16 { return 0 }
	if o.Logger == nil {
		o.Logger = Logger(t)
	}
	c, err := runtime.NewContext(&policy.Policy{StreamTypes: types}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Retry conceals so many failures, with a wait of 5 ms.
func Retry(conceal uint16) *policy.Retry {
	return &policy.Retry{Name: "r", Backoff: []time.Duration{5 * time.Millisecond}, Conceal: conceal}
}
