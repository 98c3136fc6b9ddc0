package machine

import (
	"fmt"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A node is the state of a machine: at rest, or in the middle of an unanswered effect.
type node struct {
	m       Machine
	pending Effect
	history history
}

// A history is the part of the past that the laws depend on.
type history struct {
	ended     bool // DESTROYING has been delivered
	released  bool
	attempted bool // in this stream
	agreed    bool // CONNECTING was the latest delivery, and was answered with OK
	connected bool // CONNECTED was delivered in this attempt
	owed      bool // DISCONNECTED is still to be delivered
	waits     int  // in a row
}

// A move is a possible transition of a node.
type move struct {
	name string
	do   func(*node) error
}

var results = []policy.Result{policy.OK, policy.TxDontSend, policy.DisconnectMe, policy.DestroyMe}

// events are the possible events of the program and its timers.
var events = []move{
	{"Request", func(n *node) error { n.m.Request(); return nil }},
	{"Connect", func(n *node) error { n.m.Connect(); return nil }},
	{"TimedOut", func(n *node) error { n.m.TimedOut(); return nil }},
	{"CancelTimeout", func(n *node) error { n.m.CancelTimeout(); return nil }},
	{"Destroy", func(n *node) error { n.m.Destroy(); return nil }},
}

// reports are the states that a transport may report, legal or not.
var reports = []policy.State{
	policy.StateConnected, policy.StateQoSAckRemote, policy.StateQoSNackRemote, policy.StateUserBase,
	policy.StateServerTxn, policy.StateServerUpgrade,
}

// allowed reports whether the machine may deliver a state that a transport reports.
func allowed(m Machine, state policy.State) bool {
	switch state {
	case policy.StateConnected:
		return !m.reached
	case policy.StateServerUpgrade:
		return !m.reached && m.Accepted
	case policy.StateServerTxn:
		return m.reached && m.Accepted
	}
	return m.reached
}

// endings are the ways in which an attempt may return.
var endings = []Failure{
	{Failed: true}, {}, {Failed: true, Brief: true}, {Failed: true, Arg: 1}, {Failed: true, Final: true}, {Failed: true, Least: time.Hour},
}

// A step is how a node was first reached.
type step struct {
	from node
	move string
}

// forget merges nodes whose difference has no further effect.
func (n *node) forget() {
	m := &n.m
	if retry := m.Type.Retry; retry != nil {
		m.tries = min(m.tries, retry.Conceal+1)
	} else {
		m.tries = min(m.tries, 1)
	}
	if m.phase < lost || m.phase > backingOff {
		m.final, m.arg, m.least, m.again = false, 0, 0, false
	}
	if m.phase != running {
		m.cut, m.declined, m.reached, m.silent = false, false, false, false
	}
	if m.phase != connecting {
		m.byCall = false
	}
	if m.Gone() {
		n.history = history{ended: n.history.ended, released: n.history.released}
	}
}

// moves returns all moves of a node.
func (n *node) moves() []move {
	moves := append([]move(nil), events...)
	if n.m.waiting {
		moves = append(moves, move{"WaitOver", func(n *node) error { n.m.WaitOver(); return nil }})
	}
	switch {
	case n.pending.Do == Deliver:
		for _, r := range results {
			moves = append(moves, move{"answer " + r.String(), func(n *node) error { return n.answer(r) }})
		}
		return moves
	case n.pending.Do == Illegal:
		return append(moves, move{"answer DestroyMe", func(n *node) error { return n.answer(policy.DestroyMe) }})
	case n.pending.Do != Yield:
		return append(moves, move{"answer OK", func(n *node) error { return n.answer(policy.OK) }})
	}
	moves = append(moves, move{"Next", (*node).next})
	if n.m.phase == running {
		for _, state := range reports {
			moves = append(moves, move{"Reach " + state.String(), func(n *node) error { return n.reach(state) }})
		}
		for _, f := range endings {
			if n.m.reached || f.Failed {
				moves = append(moves, move{fmt.Sprintf("Ended %+v", f), func(n *node) error {
					n.m.Ended(f)
					n.history.owed, n.history.connected = n.history.connected, false
					return nil
				}})
			}
		}
		for _, r := range results[1:] {
			moves = append(moves, move{"Obey " + r.String(), func(n *node) error { n.m.Obey(r); return nil }})
		}
	}
	return moves
}

func (n *node) next() error {
	before := n.m
	e := n.m.Next()
	h := &n.history
	switch e.Do {
	case Illegal:
		return fmt.Errorf("the machine itself makes an illegal move to %v", e.State)
	case Attempt:
		if !h.agreed {
			return fmt.Errorf("an attempt without the program's consent to CONNECTING")
		}
		if h.attempted && n.m.Accepted {
			return fmt.Errorf("an accepted stream connects again")
		}
		h.attempted = true
	case Wait:
		if h.waits++; h.waits > int(n.m.Type.Retry.Conceal) {
			return fmt.Errorf("%d waits in a row, and the policy conceals %d failures", h.waits, n.m.Type.Retry.Conceal)
		}
		if d, least := e.Delay(n.m.Type.Retry, 0), n.m.least; d < least {
			return fmt.Errorf("a wait of %v, and the peer wants %v", d, least)
		}
	case Release:
		if h.released || !h.ended {
			return fmt.Errorf("released twice, or before DESTROYING")
		}
		h.released = true
	case Cut:
		if before.phase != running {
			return fmt.Errorf("an attempt is cut that is not running")
		}
	}
	if h.ended && e.Do != Yield && e.Do != Release {
		return fmt.Errorf("%v after DESTROYING", e.Do)
	}
	n.pending = Effect{}
	switch e.Do {
	case Begin, Attempt:
		n.pending = e
	case Deliver:
		return n.deliver(before, e)
	}
	return nil
}

func (n *node) reach(state policy.State) error {
	before := n.m
	e := n.m.Reach(state)
	if e.Do == Illegal {
		if state.Unordered() || before.state.MayBecome(state) && allowed(before, state) {
			return fmt.Errorf("a legal report is refused")
		}
		n.pending = e
		return nil
	}
	if state == policy.StateConnected {
		n.history.connected, n.history.waits = true, 0
	}
	return n.deliver(before, e)
}

// deliver checks a delivery.
func (n *node) deliver(before Machine, e Effect) error {
	if !e.State.Unordered() && !before.state.MayBecome(e.State) {
		return fmt.Errorf("%v after %v", e.State, before.state)
	}
	h := &n.history
	h.agreed = false
	switch e.State {
	case policy.StateUnreachable:
		if n.m.Accepted {
			return fmt.Errorf("UNREACHABLE for an accepted stream")
		}
	case policy.StateDisconnected:
		if !h.owed {
			return fmt.Errorf("DISCONNECTED without CONNECTED")
		}
		h.owed = false
	case policy.StateDestroying:
		if h.owed {
			return fmt.Errorf("DESTROYING, and DISCONNECTED is owed")
		}
		h.ended = true
	case policy.StateCreating:
		if before.phase != fresh {
			return fmt.Errorf("CREATING again")
		}
	}
	n.pending = e
	return nil
}

func (n *node) answer(r policy.Result) error {
	e := n.pending
	n.pending = Effect{}
	n.m.Answer(e, r)
	if e.Do == Begin && n.m.byCall {
		n.history.waits = 0
	}
	n.history.agreed = e.Do == Deliver && e.State == policy.StateConnecting && n.m.phase == starting
	return nil
}

// settle makes every effect succeed, and returns the number of steps.
func (n node) settle() (steps int, err error) {
	for ; steps < 100; steps++ {
		if n.pending.Do != Yield {
			r := policy.OK
			if n.pending.Do == Illegal {
				r = policy.DestroyMe
			}
			_ = n.answer(r)
			continue
		}
		before := n.m
		if err := n.next(); err != nil {
			return steps, err
		}
		if n.pending.Do == Yield && n.m == before {
			return steps, nil
		}
	}
	return steps, fmt.Errorf("the machine does not come to rest")
}

// foretell checks that Retries predicts what follows.
func (n node) foretell() error {
	if n.pending.Do != Deliver || n.pending.State != policy.StateDisconnected && n.pending.State != policy.StateUnreachable {
		return nil
	}
	retries := n.m.Retries()
	n.m.Answer(n.pending, policy.OK)
	if e := n.m.Next(); retries != (e.Do == Wait) {
		return fmt.Errorf("Retries was %v, and %v follows", retries, e)
	}
	return nil
}

// end destroys a stream whose transport cooperates, and reports whether the stream ends.
func (n node) end() error {
	n.m.Destroy()
	for range 100 {
		if n.history.released {
			return nil
		}
		if n.pending.Do != Yield {
			_ = n.answer(policy.OK)
			continue
		}
		if err := n.next(); err != nil {
			return err
		}
		if n.m.cut && n.m.phase == running {
			n.m.Ended(Failure{Failed: true})
			n.history.owed, n.history.connected = n.history.connected, false
		}
	}
	return fmt.Errorf("a stream that was destroyed does not end")
}

// TestExplore visits every state of a machine that any order of events, effects and answers
// can reach, for each kind of policy, and checks the laws on the way.
func TestExplore(t *testing.T) {
	start := time.Now()
	machines, steps := 0, 0
	for _, retry := range []*policy.Retry{nil, {Conceal: 0}, {Conceal: 1}, {Conceal: 2}} {
		for _, opportunistic := range []bool{false, true} {
			for _, accepted := range []bool{false, true} {
				st := &policy.StreamType{Retry: retry, Opportunistic: opportunistic}
				first := node{m: Machine{Type: st, Accepted: accepted}}
				if accepted {
					first.m.Start()
				}
				visited := map[node]step{first: {}}
				queue := []node{first}
				path := func(n node) (text string) {
					for n != first {
						s := visited[n]
						text = ", " + s.move + text
						n = s.from
					}
					return fmt.Sprintf("retry %+v, opportunistic %v, accepted %v%s", retry, opportunistic, accepted, text)
				}
				for len(queue) > 0 {
					n := queue[0]
					queue = queue[1:]
					if _, err := n.settle(); err != nil {
						t.Fatalf("%s: %v", path(n), err)
					}
					if err := n.foretell(); err != nil {
						t.Fatalf("%s: %v", path(n), err)
					}
					if err := n.end(); err != nil {
						t.Fatalf("%s: %v", path(n), err)
					}
					for _, move := range n.moves() {
						to := n
						steps++
						if err := move.do(&to); err != nil {
							t.Fatalf("%s, %s: %v", path(n), move.name, err)
						}
						to.forget()
						if _, known := visited[to]; !known {
							visited[to] = step{n, move.name}
							queue = append(queue, to)
						}
					}
				}
				machines += len(visited)
			}
		}
	}
	t.Logf("%d machines, %d steps, %v", machines, steps, time.Since(start).Round(time.Millisecond))
	if machines < 5000 {
		t.Errorf("only %d machines: the exploration has lost its way", machines)
	}
}
