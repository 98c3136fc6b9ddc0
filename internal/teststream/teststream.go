// Package teststream supports tests of streams: it records the events of a stream, and
// creates contexts whose log messages fail the test.
package teststream

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Name returns the short name of a state.
func Name(state runtime.State) string { return state.Short() }

// Actions are the actions of a handler, by event name.
type Actions = map[string]func(*runtime.Stream) runtime.Result

// These are for Actions.
func Connect(s *runtime.Stream) runtime.Result   { s.Connect(); return runtime.OK }
func RequestTx(s *runtime.Stream) runtime.Result { s.RequestTx(); return runtime.OK }
func Disconnect(*runtime.Stream) runtime.Result  { return runtime.DisconnectMe }
func Destroy(*runtime.Stream) runtime.Result     { return runtime.DestroyMe }

// A Trace records the calls of a stream's handlers as events. The zero value is
// ready to use, also in a bubble of package synctest.
type Trace struct {
	On     Actions
	Prefix func() string // returns the text before each event; nil means none

	mu      sync.Mutex
	events  []string
	body    []byte
	inside  bool
	changed chan struct{} // closed at the next event, if not nil
}

// Note records an event and runs its action. It records "CONCURRENT" when two
// handlers run at the same time.
func (tr *Trace) Note(s *runtime.Stream, event string) runtime.Result {
	return tr.note(s, event, false)
}

// NoteOnce is Note, but records successive equal events only once.
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

// State is the State handler. The event is the Name of the state.
func (tr *Trace) State(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
	return tr.Note(s, Name(state))
}

// Keep adds received payload to the body of the trace.
func (tr *Trace) Keep(payload []byte) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.body = append(tr.body, payload...)
}

// Body returns the payload that was kept.
func (tr *Trace) Body() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return string(tr.body)
}

// Events returns the recorded events.
func (tr *Trace) Events() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.events)
}

func (tr *Trace) String() string { return strings.Join(tr.Events(), " ") }

// Count returns the number of recorded events of that name.
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

// Reset forgets the recorded events, but not the body.
func (tr *Trace) Reset() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.events = nil
}

// awaitLimit is the time limit of a wait.
const awaitLimit = 30 * time.Second

// Await calls done now and after each event until it returns true, for at most
// 30 s. It returns the last result.
func (tr *Trace) Await(done func() bool) bool {
	limit := time.NewTimer(awaitLimit)
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

// AwaitEnd waits until the last events are one of the given sequences, whose
// events are separated by spaces. If that does not happen, it ends the test.
func (tr *Trace) AwaitEnd(t testing.TB, sequences ...string) {
	t.Helper()
	ends := func() bool {
		got := tr.String()
		return slices.ContainsFunc(sequences, func(e string) bool { return strings.HasSuffix(got, e) })
	}
	if !tr.Await(ends) {
		t.Fatalf("events do not end in %q: %s", sequences, tr)
	}
}

// AwaitCount waits until an event has been recorded n times. If that does not
// happen, it ends the test.
func (tr *Trace) AwaitCount(t testing.TB, n int, event string) {
	t.Helper()
	if !tr.Await(func() bool { return tr.Count(event) >= n }) {
		t.Fatalf("not %d times %q: %s", n, event, tr)
	}
}

// Want compares the recorded events, joined by spaces, with want.
func (tr *Trace) Want(t testing.TB, want string) {
	t.Helper()
	if got := tr.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Elapsed returns a Prefix of the time since now in units, such as "3:"; there is
// none at 0. A unit of 0 formats the time as a Duration, such as "3s:".
func Elapsed(unit time.Duration) func() string {
	start := time.Now()
	return func() string {
		switch d := time.Since(start); {
		case d == 0:
			return ""
		case unit == 0:
			return d.String() + ":"
		default:
			return fmt.Sprintf("%d:", d/unit)
		}
	}
}

// Must returns v, and panics if there is an error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Logger returns a logger that turns each line into an error of the test.
func Logger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(failer{t}, nil)) }

type failer struct{ t testing.TB }

func (f failer) Write(line []byte) (int, error) {
	f.t.Errorf("the runtime logged: %s", line)
	return len(line), nil
}

// NewContext returns a context for streamtypes, without jitter, and shuts it down
// at the end of the test. If the options have no logger, it must not log.
func NewContext(t testing.TB, o runtime.Options, types ...*policy.StreamType) *runtime.Context {
	t.Helper()
	return NewPolicyContext(t, o, &policy.Policy{StreamTypes: types})
}

// NewPolicyContext is NewContext for a policy.
func NewPolicyContext(t testing.TB, o runtime.Options, p *policy.Policy) *runtime.Context {
	t.Helper()
	o.Jitter = func() uint16 { return 0 }
	if o.Logger == nil {
		o.Logger = Logger(t)
	}
	c, err := runtime.NewContext(p, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Shutdown(t, c) })
	return c
}

// Shutdown closes a context, without waiting for acknowledgements, and ends the
// test if any resource of the context is left after 30 s.
func Shutdown(t testing.TB, c *runtime.Context) {
	t.Helper()
	c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	if err := c.Shutdown(ctx); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
}

// Retry conceals that many failures, with a backoff of 5 ms.
func Retry(conceal uint16) *policy.Retry {
	return &policy.Retry{Name: "r", Backoff: []time.Duration{5 * time.Millisecond}, Conceal: conceal}
}

// Settle waits until the stream has done all pending work, apart from waits for a
// retry. It uses two timeouts, which are recorded as "TMO TMO": a pending attempt
// begins between them.
func (tr *Trace) Settle(t testing.TB, s *runtime.Stream) {
	t.Helper()
	for range 2 {
		n := tr.Count("TMO")
		s.StartTimeout(1)
		tr.AwaitCount(t, n+1, "TMO")
	}
}
