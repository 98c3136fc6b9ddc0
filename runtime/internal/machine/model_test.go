package machine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A world makes the choices that a program, its timers and a transport would
// make, and records what a stream does about them.
type world struct {
	choose func(n int) int
	trace  []string
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// An occasion is an external event.
type occasion int

const (
	nothing occasion = iota
	callRequest
	callConnect
	callDestroy
	timerTimeout
	occasions
)

// A model is a single-threaded reference implementation of a stream. It is the
// specification of the machine.
type model struct {
	*world
	st                           *policy.StreamType
	accepted                     bool
	state                        policy.State
	tries                        int
	tx, connect, start, timeout  bool
	destroy, attempting, waiting bool
}

func (m *model) happens(o occasion) {
	switch {
	case o == timerTimeout:
		m.timeout = true
	case o == callDestroy:
		m.destroy = true
	case m.destroy || m.attempting:
	case o == callConnect:
		m.connect = true
	case o == callRequest && !m.waiting:
		m.tx = true
	}
}

// deliver delivers a state; events may occur during the callback.
func (m *model) deliver(state policy.State, arg uint32) policy.Result {
	m.note("%v %d", state, arg)
	m.state = state
	if state == policy.StateDestroying {
		return policy.OK
	}
	m.happens(occasion(m.choose(int(occasions))))
	r := results[m.choose(len(results))]
	if r == policy.DestroyMe {
		m.destroy = true
	}
	return r
}

func (m *model) live() {
	m.deliver(policy.StateCreating, 0)
	for {
		switch {
		case m.destroy:
			m.deliver(policy.StateDestroying, 0)
			return
		case m.timeout:
			m.timeout = false
			m.deliver(policy.StateTimeout, 0)
		case m.connect || m.start || m.tx:
			m.attempt()
		default:
			o := occasion(m.choose(int(occasions) + 1))
			if o == occasions && m.waiting {
				m.waiting, m.tx = false, true
			} else if o == nothing || o == occasions {
				return // for ever
			}
			m.happens(o)
		}
	}
}

func (m *model) attempt() {
	byCall := m.connect
	poll := !m.connect && !m.start && m.state != policy.StatePoll
	m.connect, m.start, m.tx, m.waiting = false, false, false, false
	if byCall {
		m.tries = 0
	}
	m.attempting = true
	if poll {
		if r := m.deliver(policy.StatePoll, 0); r != policy.OK || m.destroy {
			m.attempting = false
			return
		}
	}
	r := m.deliver(policy.StateConnecting, 0)
	if r != policy.OK || m.destroy {
		m.attempting = false
		switch {
		case m.accepted:
			m.destroy = true
		case !m.destroy && !byCall:
			m.backoff(Failure{}, func() { m.deliver(policy.StateAllRetriesFailed, 0) })
		}
		return
	}
	connected, f := m.connection()
	m.attempting = false
	if connected && (!f.Failed || !f.Brief) {
		m.tries = 0
	}
	if connected {
		m.disconnected(f)
		return
	}
	if m.destroy {
		return
	}
	if m.accepted {
		m.destroy = true
		return
	}
	r = m.deliver(policy.StateUnreachable, f.Arg)
	switch {
	case r != policy.OK && r != policy.DestroyMe:
		m.tx = false
	case m.destroy || m.connect:
	case f.Final:
		m.deliver(policy.StateAllRetriesFailed, 0)
	default:
		m.backoff(f, func() { m.deliver(policy.StateAllRetriesFailed, 0) })
	}
}

// connection plays the transport. It returns immediately when it is cancelled.
func (m *model) connection() (connected bool, f Failure) {
	m.note("attempt")
	declined := false
	obey := func(r policy.Result) { declined = declined || r != policy.OK && r != policy.DestroyMe }
	for {
		switch {
		case m.destroy || declined:
			m.note("cut %v", m.destroy)
			return connected, Failure{Failed: true}
		case m.timeout:
			m.timeout = false
			obey(m.deliver(policy.StateTimeout, 0))
			continue
		}
		switch n := m.choose(len(endings) + 2); {
		case n < len(endings):
			if connected || endings[n].Failed {
				return connected, endings[n]
			}
		case n == len(endings):
			m.happens(occasion(m.choose(int(occasions))))
		case !connected:
			if m.accepted {
				if obey(m.deliver(policy.StateServerUpgrade, 0)); m.timeout || m.destroy || declined {
					continue
				}
			}
			connected = true
			obey(m.deliver(policy.StateConnected, 0))
		case m.accepted:
			obey(m.deliver(policy.StateServerTxn, 0))
		default:
			obey(m.deliver(policy.StateQoSAckRemote, 0))
		}
	}
}

func (m *model) disconnected(f Failure) {
	again := f.Failed && !f.Final && !m.st.Opportunistic && !m.destroy
	m.deliver(policy.StateDisconnected, 0)
	if m.accepted {
		m.destroy = true
	}
	if !again || m.destroy || m.connect {
		return
	}
	m.backoff(f, func() {
		r := m.deliver(policy.StateUnreachable, 0)
		if r != policy.OK && r != policy.DestroyMe {
			m.tx = false
		}
		if r == policy.OK && !m.destroy {
			m.deliver(policy.StateAllRetriesFailed, 0)
		}
	})
}

// backoff counts a failure, and waits or gives up.
func (m *model) backoff(f Failure, giveUp func()) {
	m.tx = false
	before := m.tries
	m.tries++
	if m.st.Retry == nil || m.tries > int(m.st.Retry.Conceal) {
		giveUp()
		return
	}
	m.waiting = true
	m.note("wait %v", max(m.st.Retry.Delay(uint16(before), 0), f.Least))
}

// A runner runs a machine in the same world.
type runner struct {
	*world
	m Machine
}

func (r *runner) happens(o occasion) {
	switch o {
	case callRequest:
		r.m.Request()
	case callConnect:
		r.m.Connect()
	case callDestroy:
		r.m.Destroy()
	case timerTimeout:
		r.m.TimedOut()
	}
}

func (r *runner) deliver(e Effect) {
	r.note("%v %d", e.State, e.Arg)
	if e.State == policy.StateDestroying {
		r.m.Answer(e, policy.OK)
		return
	}
	r.happens(occasion(r.choose(int(occasions))))
	r.m.Answer(e, results[r.choose(len(results))])
}

func (r *runner) live() {
	for {
		switch e := r.m.Next(); e.Do {
		case Deliver:
			r.deliver(e)
		case Begin:
			r.m.Answer(e, policy.OK)
		case Attempt:
			r.note("attempt")
			r.m.Answer(e, policy.OK)
		case Cut:
			r.note("cut %v", e.Destroy)
			r.m.Ended(Failure{Failed: true})
		case Wait:
			r.note("wait %v", e.Delay(r.m.Type.Retry, 0))
		case Release:
			return
		case Illegal:
			r.note("illegal %v", e.State)
			return
		case Yield:
			if r.m.Running() {
				r.connection()
				continue
			}
			o := occasion(r.choose(int(occasions) + 1))
			if o == occasions && r.m.Waiting() {
				r.m.WaitOver()
			} else if o == nothing || o == occasions {
				return
			}
			r.happens(o)
		}
	}
}

func (r *runner) connection() {
	switch n := r.choose(len(endings) + 2); {
	case n < len(endings):
		if r.m.Connected() || endings[n].Failed {
			r.m.Ended(endings[n])
		}
	case n == len(endings):
		r.happens(occasion(r.choose(int(occasions))))
	case !r.m.Connected():
		if r.m.Accepted {
			if r.deliver(r.m.Reach(policy.StateServerUpgrade)); r.m.Pending() {
				return
			}
		}
		r.deliver(r.m.Reach(policy.StateConnected))
	case r.m.Accepted:
		r.deliver(r.m.Reach(policy.StateServerTxn))
	default:
		r.deliver(r.m.Reach(policy.StateQoSAckRemote))
	}
}

// compare runs machine and model with the same choices, and compares their records.
func compare(t *testing.T, st *policy.StreamType, accepted bool, choices func() func(int) int) {
	t.Helper()
	want := &model{world: &world{choose: choices()}, st: st, accepted: accepted, start: accepted}
	want.live()
	got := &runner{world: &world{choose: choices()}, m: Machine{Type: st, Accepted: accepted}}
	if accepted {
		got.m.Start()
	}
	got.live()
	if a, b := strings.Join(want.trace, ", "), strings.Join(got.trace, ", "); a != b {
		t.Fatalf("retry %+v, opportunistic %v, accepted %v\nmodel   %s\nmachine %s", st.Retry, st.Opportunistic, accepted, a, b)
	}
}

var kinds = func() (kinds []*policy.StreamType) {
	for _, retry := range []*policy.Retry{nil, {Conceal: 0}, {Conceal: 2}, {Conceal: 65535}} {
		for _, opportunistic := range []bool{false, true} {
			kinds = append(kinds, &policy.StreamType{Retry: retry, Opportunistic: opportunistic})
		}
	}
	return kinds
}()

// depth is the number of leading choices that are tried exhaustively.
const depth = 6

// TestModel compares machine and model in every run of few choices, and in random runs of
// many.
func TestModel(t *testing.T) {
	lives := 0
	for _, st := range kinds {
		for _, accepted := range []bool{false, true} {
			// Every sequence of choices up to a length; all later choices are 0.
			digits := []int{}
			for {
				var limits []int
				compare(t, st, accepted, func() func(int) int {
					i := 0
					limits = limits[:0]
					return func(n int) int {
						i++
						if i <= depth {
							limits = append(limits, n)
						}
						if i > 200 || i > len(digits) {
							return 0
						}
						return digits[i-1]
					}
				})
				lives++
				for len(digits) < len(limits) {
					digits = append(digits, 0)
				}
				digits = digits[:len(limits)]
				for len(digits) > 0 && digits[len(digits)-1] == limits[len(digits)-1]-1 {
					digits = digits[:len(digits)-1]
				}
				if len(digits) == 0 {
					break
				}
				digits[len(digits)-1]++
			}
		}
	}
	for seed := range uint64(50_000) {
		compare(t, kinds[seed%uint64(len(kinds))], seed%16 > 12, func() func(int) int {
			r := rand.New(rand.NewPCG(seed, 1))
			left := 300
			return func(n int) int {
				if left--; left < 0 {
					return 0
				}
				return r.IntN(n)
			}
		})
		lives++
	}
	t.Logf("%d lives", lives)
}
