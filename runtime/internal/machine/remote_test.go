package machine

import (
	"slices"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestRemote explores a machine whose stream a proxy executes. The machine ends from every
// reachable state when it is destroyed. It delivers the DISCONNECTED that the proxy has not
// reported, and UPSTREAM_LINK_RETRY only without a link.
func TestRemote(t *testing.T) {
	type node struct {
		m       Machine
		pending Effect
		owed    bool // DISCONNECTED
	}
	reports := []policy.State{policy.StatePoll, policy.StateConnecting, policy.StateConnected, policy.StateDisconnected,
		policy.StateUnreachable, policy.StateAllRetriesFailed, policy.StateAuthFailed, policy.StateTimeout, policy.StateQoSAckRemote, policy.StateUserBase}
	deliver := func(n *node, e Effect) {
		switch e.State {
		case policy.StateConnected:
			n.owed = true
		case policy.StateDisconnected:
			n.owed = false
		case policy.StateUnreachable, policy.StateAuthFailed, policy.StatePoll, policy.StateConnecting:
			n.owed = false // reported by the proxy
		case policy.StateUpstreamLinkRetry:
			if n.m.Running() {
				t.Fatalf("UPSTREAM_LINK_RETRY with a link: %+v", n.m)
			}
		}
	}
	next := func(n *node) bool {
		before := n.m.State()
		e := n.m.Next()
		if e.Do == Illegal {
			t.Fatalf("illegal move to %v: %+v", e.State, n.m)
		}
		if e.Do == Deliver {
			// A proxy may report CONNECTING and DISCONNECTED; the machine does not.
			if e.State == policy.StateDisconnected && !n.owed {
				t.Fatalf("DISCONNECTED is not owed: %+v", n.m)
			}
			if e.State == policy.StateDestroying && n.owed && before.MayBecome(policy.StateDisconnected) {
				t.Fatalf("DESTROYING, and DISCONNECTED is owed: %+v", n.m)
			}
			deliver(n, e)
		}
		if e.Do == Deliver || e.Do == Begin || e.Do == Attempt {
			n.pending = e
		}
		if e.Do == Wait && e.Delay(nil, 1) != n.m.least {
			t.Fatalf("a wait of %v, not %v", e.Delay(nil, 1), n.m.least)
		}
		return e.Do != Yield
	}
	moves := func(n node) (to []node) {
		do := func(f func(*node)) {
			m := n
			f(&m)
			to = append(to, m)
		}
		do(func(n *node) { n.m.Destroy() })
		do(func(n *node) { n.m.Connect() })
		do(func(n *node) { n.m.Request() })
		if n.m.Waiting() {
			do(func(n *node) { n.m.WaitOver() })
		}
		if n.pending.Do != Yield {
			for _, r := range results {
				do(func(n *node) { e := n.pending; n.pending = Effect{}; n.m.Answer(e, r) })
			}
			return to
		}
		do(func(n *node) { next(n) })
		if n.m.Running() {
			for _, s := range reports {
				if n.m.MayReport(s) {
					do(func(n *node) {
						e := n.m.Report(s, 0)
						deliver(n, e)
						n.m.Answer(e, policy.OK)
					})
				}
			}
			do(func(n *node) { n.m.Ended(Failure{Failed: true, Least: time.Second, Arg: 1}) })
			do(func(n *node) { n.m.Obey(policy.DisconnectMe) })
		}
		return to
	}
	end := func(n node) {
		n.m.Destroy()
		for range 50 {
			if n.m.Gone() {
				return
			}
			if n.pending.Do != Yield {
				e := n.pending
				n.pending = Effect{}
				n.m.Answer(e, policy.OK)
			} else if !next(&n) && n.m.Running() {
				n.m.Ended(Failure{Failed: true})
			}
		}
		t.Fatalf("it does not end: %+v", n.m)
	}
	first := node{m: Machine{Type: &policy.StreamType{}, Remote: true}}
	first.m.Start()
	known := map[node]bool{first: true}
	for queue := []node{first}; len(queue) > 0; queue = slices.Delete(queue, 0, 1) {
		end(queue[0])
		for _, n := range moves(queue[0]) {
			if !known[n] {
				known[n] = true
				queue = append(queue, n)
			}
		}
		if len(known) > 100_000 {
			t.Fatal("too many machines")
		}
	}
	if len(known) < 100 {
		t.Errorf("only %d machines", len(known))
	}
	t.Logf("%d machines", len(known))
}
