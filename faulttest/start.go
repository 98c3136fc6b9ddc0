package faulttest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TB is the part of testing.TB that Start uses.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// A Peer is a running peer that misbehaves, and the policy that redirects a stream
// to it.
type Peer struct {
	Target
	Fault  *Fault
	Policy *policy.Policy // a copy of the policy, with the stream redirected to the peer

	peer    *peer
	matcher matcher

	mu     sync.Mutex
	events []Event
	begin  time.Time
}

// Start starts the peer of a fault for a stream of a compiled policy. The peer ends
// with the test. Start fails the test if the fault does not apply to the stream.
func Start(t TB, p *policy.Policy, stream string, f *Fault) *Peer {
	t.Helper()
	return StartWith(t, p, stream, f, Options{})
}

// StartWith is like [Start] with options. It uses Args, Hurry, Listen, Upstream,
// Log, Authority and Plain; Hurry divides the times of Peer.Policy.
func StartWith(t TB, p *policy.Policy, stream string, f *Fault, o Options) *Peer {
	t.Helper()
	d, err := Open(p, stream, f, o)
	if err != nil {
		t.Fatalf("faulttest: %v", err)
	}
	t.Cleanup(d.Close)
	return d
}

// Open is like [StartWith] for programs that are not tests. The caller must call
// Close.
func Open(p *policy.Policy, stream string, f *Fault, o Options) (*Peer, error) {
	pr, target, err := start(p, stream, f, &o)
	if err != nil {
		return nil, err
	}
	d := &Peer{Target: *target, Fault: f, peer: pr, matcher: matcher{pr.subject, f.expect(pr.subject)}, begin: time.Now()}
	d.Policy = d.Apply(p)
	for i, st := range d.Policy.StreamTypes {
		if st.Name == stream {
			d.Policy.StreamTypes[i] = o.hurried(st)
		}
	}
	return d, nil
}

// Close ends the peer. It may be called more than once.
func (d *Peer) Close() { d.peer.close() }

// Address returns the host and port to which the stream is redirected.
func (d *Peer) Address() string { return d.address() }

// LWSFragment returns an overlay for lws's own overlay function, for the same
// stream.
func (d *Peer) LWSFragment(p *policy.Policy) ([]byte, error) {
	return d.Target.lwsFragment(p, !d.peer.tls)
}

// Strikes returns how often the fault has acted.
func (d *Peer) Strikes() int { return int(d.peer.strikes.Load()) }

// Want returns the expected sequence of states of the stream if the program
// requests to send, in the notation of docs/runtime.md.
func (d *Peer) Want() string { return d.matcher.String() }

// Options returns o with the options that the fault needs: name resolution, and the
// time limit of an attempt, which the expected states depend on.
func (d *Peer) Options(o runtime.Options) runtime.Options {
	if d.DialContext != nil {
		o.DialContext = d.DialContext
	}
	o.ConnectTimeout = d.matcher.connectTimeout
	return o
}

// Observe returns handlers that record the states and the received payload of a
// stream for Check, and call h.
func (d *Peer) Observe(h runtime.Handlers) runtime.Handlers {
	inner := h
	h.State = func(s *runtime.Stream, state runtime.State, arg uint32) runtime.Result {
		if state != runtime.StateDestroying {
			d.note(state.Short())
		}
		if inner.State == nil {
			return runtime.OK
		}
		return inner.State(s, state, arg)
	}
	h.Rx = func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
		if flags&runtime.FlagPerfJSON == 0 {
			d.note("rx")
		}
		if inner.Rx == nil {
			return runtime.OK
		}
		return inner.Rx(s, buf, flags)
	}
	return h
}

func (d *Peer) note(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, Event{Name: name, At: time.Since(d.begin)})
}

// Check compares the events that Observe has recorded with those that the fault
// expects. The error describes the difference, or says that the sequence is
// incomplete.
func (d *Peer) Check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	got := names(d.events)
	switch v, want := d.matcher.match(got); v {
	case wrong, incomplete:
		return fmt.Errorf("fault %s: expected %s after %s", d.Fault.Name, want, strings.Join(got, " "))
	}
	if d.Strikes() == 0 {
		return fmt.Errorf("fault %s: the peer did not misbehave", d.Fault.Name)
	}
	return d.matcher.times(d.events)
}

// Done reports whether the recorded events determine the result of Check.
func (d *Peer) Done() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, _ := d.matcher.match(names(d.events))
	return v != incomplete
}
