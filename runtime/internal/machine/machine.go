// Package machine decides what a stream does next.
//
// A [Machine] is a value: it has no lock, clock or goroutine. Whoever runs it
// calls [Machine.Next], does what the [Effect] says, and reports the outcome with
// [Machine.Answer], until Next returns Yield. Events from outside come in through
// the other methods; after each of them Next may have something new.
//
// The order of states, the counting of retries and the meaning of a callback's
// result are those of lws 5.0.0 (lib/secure-streams/secure-streams.c), except that
// CONNECTED does not end a series of failures; see [Failure].
package machine

import (
	"math"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An Action is what the runner of a machine has to do.
type Action uint8

const (
	// Yield means that nothing is to be done until the next event.
	Yield Action = iota
	// Begin means that an attempt begins: the runner makes the machine's Type
	// current and stops the retry timer.
	Begin
	// Deliver means to call the State callback with State and Arg.
	Deliver
	// Attempt means to run the transport, and to call Ended when it has returned.
	Attempt
	// Cut means to make the running attempt end: because a callback has answered
	// DisconnectMe, or, if Destroy is set, because the stream is to be destroyed.
	Cut
	// Wait means to start the retry timer for Effect.Delay, and to call WaitOver
	// when it expires.
	Wait
	// Release means that the stream has ended.
	Release
	// Illegal means that State must not follow the present state. It is a defect
	// of the caller, to be logged; the stream is destroyed.
	Illegal
)

// An Effect is one thing to do.
type Effect struct {
	Do      Action
	State   policy.State // of Deliver and Illegal
	Arg     uint32       // of Deliver
	Destroy bool         // of Cut

	tries uint16
	least time.Duration
	exact bool // least is the whole wait
}

// Delay returns how long a Wait lasts; random is uniform over 0 to 65535.
func (e Effect) Delay(r *policy.Retry, random uint16) time.Duration {
	if e.exact {
		return e.least
	}
	return max(r.Delay(e.tries, random), e.least)
}

// A Failure describes the end of an attempt or connection.
type Failure struct {
	Failed bool          // it did not do what it was for
	Brief  bool          // it was connected, but not for long enough to end the series of failures
	Arg    uint32        // of UNREACHABLE, and of UPSTREAM_LINK_RETRY
	Final  bool          // no attempt follows by itself
	Least  time.Duration // the shortest wait before the next attempt
}

// A Machine is the state of one stream. Its zero value, with Type set, is that
// of a stream that has not been created. Machines can be compared with ==.
type Machine struct {
	Type     *policy.StreamType // changed by the runner at Begin only
	Accepted bool               // by a listener or sink: it has one connection, and ends with it
	Listener bool               // it never connects
	Remote   bool               // a proxy decides; an attempt is a link to the proxy

	state    policy.State // the latest that was delivered, without the unordered ones
	phase    phase
	requests requests
	tries    uint16 // failed attempts and brief connections in this series
	byCall   bool   // the attempt was started by Connect
	waiting  bool   // the retry timer runs
	cut      bool   // Cut has been returned for this attempt
	declined bool   // a callback has answered DisconnectMe in this attempt
	reached  bool   // CONNECTED has been delivered in this attempt
	silent   bool   // Remote, and the proxy has reported nothing on this link
	again    bool   // another attempt follows this connection
	replaced bool   // see Replaced

	// Of the attempt that has ended; see Failure.
	final bool
	arg   uint32
	least time.Duration
}

// A phase is the place in the sequence of states.
type phase uint8

const (
	fresh       phase = iota // CREATING is next
	idle                     // no attempt
	preparing                // Begin is next
	polling                  // POLL is next
	connecting               // CONNECTING is next
	starting                 // Attempt is next
	running                  // the transport runs
	lost                     // DISCONNECTED is next
	unreachable              // UNREACHABLE is next, and then perhaps a wait
	exhausted                // UNREACHABLE is next, and then ALL_RETRIES_FAILED
	unlinked                 // UPSTREAM_LINK_RETRY is next, and then a wait
	backingOff               // Wait is next
	allFailed                // ALL_RETRIES_FAILED is next
	destroying               // DESTROYING is next
	releasing                // Release is next
	gone                     // nothing is next
	phases                   // how many there are
)

// requests are what the stream has been asked to do, and has not begun.
type requests uint8

const (
	requestTx      requests = 1 << iota // by RequestTx, or the end of a wait
	requestConnect                      // by Connect
	requestStart                        // the first attempt of a nailed_up stream
	requestTimeout                      // the timer of StartTimeout has expired
	requestDestroy

	requestAttempt = requestTx | requestConnect | requestStart
)

// State returns the latest state that was delivered, or is being delivered;
// unordered states do not count.
func (m *Machine) State() policy.State { return m.state }

// Running reports whether an attempt is running, or its connection.
func (m *Machine) Running() bool { return m.phase == running }

// Attempting is Running, or that the callbacks before an attempt are under way.
func (m *Machine) Attempting() bool { return m.phase >= preparing && m.phase <= running }

// Connected reports whether the running attempt has delivered CONNECTED.
func (m *Machine) Connected() bool { return m.phase == running && m.reached }

// Waiting reports whether the retry timer runs.
func (m *Machine) Waiting() bool { return m.waiting }

// Retries reports, while DISCONNECTED or UNREACHABLE is delivered, whether a wait and
// another attempt follow if the callback answers OK. It is true if a proxy decides.
func (m *Machine) Retries() bool {
	if m.Remote || m.Accepted || m.requests&(requestDestroy|requestConnect) != 0 {
		return m.Remote
	}
	return (m.phase == lost && m.again || m.phase == unreachable && !m.final) &&
		m.Type.Retry.Conceals(min(m.tries, math.MaxUint16-1)+1)
}

// Destroying reports whether the stream has been asked to end, or has ended.
func (m *Machine) Destroying() bool { return m.requests&requestDestroy != 0 || m.Gone() }

// Gone reports whether DESTROYING has been delivered, or is being delivered.
func (m *Machine) Gone() bool { return m.phase >= releasing }

// Pending reports whether Next has something to do while an attempt is running.
func (m *Machine) Pending() bool { return m.requests != 0 || m.declined && !m.cut }

// Request asks for an attempt because the program wants to send. It reports
// whether there is something new to do; an attempt that is under way, or a wait
// for the next one, leaves nothing.
func (m *Machine) Request() bool {
	if m.Listener || m.Attempting() || m.waiting || m.Destroying() {
		return false
	}
	m.requests |= requestTx
	return true
}

// Connect asks for an attempt at once and for a new series of retries. It
// reports whether there is something new to do.
func (m *Machine) Connect() bool {
	if m.Listener || m.Attempting() || m.Destroying() {
		return false
	}
	m.requests |= requestConnect
	return true
}

// Start asks for the first attempt of a stream that connects by itself.
func (m *Machine) Start() { m.requests |= requestStart }

// WaitOver reports that the retry timer has expired.
func (m *Machine) WaitOver() {
	m.waiting = false
	m.requests |= requestTx
}

// TimedOut reports that the timer of StartTimeout has expired.
func (m *Machine) TimedOut() { m.requests |= requestTimeout }

// CancelTimeout withdraws TimedOut.
func (m *Machine) CancelTimeout() { m.requests &^= requestTimeout }

// Destroy asks the stream to end.
func (m *Machine) Destroy() { m.requests |= requestDestroy }

// Replace is Destroy because a new policy defines the stream differently.
func (m *Machine) Replace() {
	m.Destroy()
	m.replaced = true
}

// Replaced reports whether Replace has been called.
func (m *Machine) Replaced() bool { return m.replaced }

// Kill ends a stream at once, without another callback.
func (m *Machine) Kill() { m.phase, m.requests, m.waiting = gone, 0, false }

// MayReport reports whether a state may be passed to Report.
func (m *Machine) MayReport(state policy.State) bool {
	return state.Unordered() || m.mayBecome(state)
}

// mayBecome reports whether a state may be delivered next. A proxy begins each link
// with a new stream.
func (m *Machine) mayBecome(state policy.State) bool {
	return m.state.MayBecome(state) || m.silent && m.phase == running && policy.StateCreating.MayBecome(state)
}

// Report is Reach for a state that a proxy reports: one that may follow the present
// state.
func (m *Machine) Report(state policy.State, arg uint32) Effect {
	e := m.deliver(state, arg)
	if e.Do == Illegal {
		return e
	}
	m.silent = m.silent && state.Unordered()
	switch state {
	case policy.StateConnected:
		m.reached = true
	case policy.StateDisconnected, policy.StateUnreachable, policy.StateAuthFailed, policy.StatePoll, policy.StateConnecting:
		m.reached = false
	}
	return e
}

// Reach is for a state that the running attempt reports: CONNECTED, a user
// state, a verdict, the states of a server. CONNECTED comes once. SERVER_UPGRADE
// comes only before it, a verdict and SERVER_TXN only after it. The runner delivers
// the state if the effect is Deliver, and calls Answer; if it is Illegal it calls
// Answer with DestroyMe.
func (m *Machine) Reach(state policy.State) Effect {
	server := state == policy.StateServerUpgrade || state == policy.StateServerTxn
	early := state == policy.StateServerUpgrade || state == policy.StateConnected
	if !state.Unordered() && (m.reached == early || server && !m.Accepted) {
		return Effect{Do: Illegal, State: state}
	}
	e := m.deliver(state, 0)
	if e.Do == Deliver && state == policy.StateConnected {
		m.reached = true
	}
	return e
}

// Ended reports that the attempt has returned. If it was connected, the result
// tells whether another attempt follows by itself. An accepted stream that was not
// connected is not unreachable: it just ends.
func (m *Machine) Ended(f Failure) (again bool) {
	m.final, m.arg, m.least = f.Final, f.Arg, f.Least
	switch {
	case !m.reached && m.Accepted:
		m.over()
		return false
	case m.Remote && (!m.reached || !m.mayBecome(policy.StateDisconnected)):
		m.relink()
		return false
	case !m.reached:
		m.phase = unreachable
		return false
	}
	if !f.Failed || !f.Brief {
		m.tries = 0
	}
	m.phase = lost
	if m.Remote {
		return false
	}
	m.again = f.Failed && !f.Final && !m.Type.Opportunistic && m.requests&requestDestroy == 0
	return m.Retries()
}

// deliveries holds the state that is delivered in a phase.
var deliveries = [phases]policy.State{
	fresh:       policy.StateCreating,
	polling:     policy.StatePoll,
	connecting:  policy.StateConnecting,
	lost:        policy.StateDisconnected,
	unreachable: policy.StateUnreachable,
	exhausted:   policy.StateUnreachable,
	unlinked:    policy.StateUpstreamLinkRetry,
	allFailed:   policy.StateAllRetriesFailed,
	destroying:  policy.StateDestroying,
}

// Next returns what is to be done. The runner does it, and, for Begin, Deliver,
// Attempt and Illegal, calls Answer, before it calls Next again.
func (m *Machine) Next() Effect {
	if m.requests&requestDestroy != 0 && m.phase >= unreachable && m.phase <= allFailed {
		m.phase = idle // there is no more to say about an attempt that was not connected
	}
	if state := deliveries[m.phase]; state != 0 {
		arg := uint32(0)
		if m.phase == unreachable || m.phase == unlinked {
			arg = m.arg
		}
		return m.deliver(state, arg)
	}
	switch m.phase {
	case idle:
		return m.betweenAttempts()
	case running:
		return m.duringAttempt()
	case preparing:
		return Effect{Do: Begin}
	case starting:
		return Effect{Do: Attempt}
	case backingOff:
		m.phase, m.waiting = idle, true
		return Effect{Do: Wait, tries: m.tries - 1, least: m.least, exact: m.Remote}
	case releasing:
		m.phase = gone
		return Effect{Do: Release}
	}
	return Effect{}
}

// betweenAttempts is Next without an attempt.
func (m *Machine) betweenAttempts() Effect {
	switch {
	case m.requests&requestDestroy != 0:
		m.phase, m.waiting = destroying, false
		return m.Next()
	case m.requests&requestTimeout != 0:
		return m.timeout()
	case m.requests&requestAttempt != 0:
		m.phase = preparing
		return m.Next()
	}
	return Effect{}
}

// duringAttempt is Next during an attempt.
func (m *Machine) duringAttempt() Effect {
	destroy := m.requests&requestDestroy != 0
	switch {
	case (destroy || m.declined) && !m.cut:
		m.cut = true
		return Effect{Do: Cut, Destroy: destroy}
	case !destroy && m.requests&requestTimeout != 0:
		return m.timeout()
	}
	return Effect{}
}

func (m *Machine) timeout() Effect {
	m.requests &^= requestTimeout
	return m.deliver(policy.StateTimeout, 0)
}

// deliver makes a state the present one, if it may follow it.
func (m *Machine) deliver(state policy.State, arg uint32) Effect {
	if !state.Unordered() {
		if !m.mayBecome(state) {
			return Effect{Do: Illegal, State: state}
		}
		m.state = state
	}
	if state == policy.StateDestroying {
		m.phase, m.requests = releasing, 0
	}
	return Effect{Do: Deliver, State: state, Arg: arg}
}

// Obey is Answer for the result of a callback that is not of an Effect: of Rx, Tx
// and those of a transport.
func (m *Machine) Obey(r policy.Result) {
	switch {
	case r == policy.DestroyMe:
		m.Destroy()
	case r != policy.OK && m.phase == running:
		m.declined = true
	}
}

// Answer reports the outcome of an effect: of Deliver the result of the callback,
// of anything else OK.
func (m *Machine) Answer(e Effect, r policy.Result) {
	if m.Gone() {
		return
	}
	m.Obey(r)
	destroy := m.requests&requestDestroy != 0
	ok := r == policy.OK && !destroy
	switch m.phase {
	case fresh:
		m.phase = idle
	case preparing:
		m.prepared(destroy)
	case polling:
		m.phase = idle
		if ok {
			m.phase = connecting
		}
	case connecting:
		m.decided(ok, destroy)
	case starting:
		m.phase = running
		m.cut, m.declined, m.reached, m.again, m.silent = false, false, false, false, m.Remote
	case lost:
		m.disconnected()
	case unreachable, exhausted:
		m.unreached(ok, r)
	case unlinked:
		m.phase = backingOff
	case allFailed:
		m.phase = idle
	}
}

// over makes the phase after an attempt idle, which is the end of an accepted
// stream.
func (m *Machine) over() {
	m.phase = idle
	if m.Accepted {
		m.Destroy()
	}
}

// prepared goes on after Begin.
func (m *Machine) prepared(destroy bool) {
	if destroy {
		m.phase = idle
		return
	}
	m.byCall = m.requests&requestConnect != 0
	m.phase = connecting
	if m.Remote {
		m.phase, m.waiting = starting, false
		m.requests &^= requestAttempt
		return
	}
	if !m.byCall && m.requests&requestStart == 0 && m.state != policy.StatePoll { // POLL must not follow POLL
		m.phase = polling
	}
	m.requests &^= requestAttempt
	m.waiting = false
	if m.byCall {
		m.tries = 0
	}
}

// relink goes on after the end of a link to the proxy. The program knows of one that it
// has ended itself.
func (m *Machine) relink() {
	m.phase = unlinked
	if m.declined {
		m.phase = backingOff
	}
}

// decided goes on after CONNECTING.
func (m *Machine) decided(ok, destroy bool) {
	switch {
	case ok:
		m.phase = starting
	case destroy || m.byCall || m.Accepted:
		m.over()
	default: // it counts as a failed attempt
		m.least = 0
		m.phase = allFailed
		if m.count() {
			m.phase = backingOff
		}
	}
}

// disconnected goes on after DISCONNECTED.
func (m *Machine) disconnected() {
	if m.Remote {
		m.relink()
		return
	}
	m.over()
	switch {
	case !m.again || m.requests&(requestDestroy|requestConnect) != 0:
	case m.count():
		m.phase = backingOff
	default:
		m.phase = exhausted // ALL_RETRIES_FAILED cannot follow DISCONNECTED
	}
}

// unreached goes on after UNREACHABLE.
func (m *Machine) unreached(ok bool, r policy.Result) {
	was := m.phase
	m.phase = idle
	switch {
	case !ok:
		if r != policy.OK && r != policy.DestroyMe {
			m.requests &^= requestTx
		}
	case was == exhausted:
		m.phase = allFailed
	case m.requests&requestConnect != 0:
	case !m.final && m.count():
		m.phase = backingOff
	default:
		m.phase = allFailed
	}
}

// count counts a failure, and reports whether the policy conceals it. Requests
// to send that came since the attempt ended are answered either way.
func (m *Machine) count() (concealed bool) {
	m.requests &^= requestTx
	if m.tries < math.MaxUint16 {
		m.tries++
	}
	return m.Type.Retry.Conceals(m.tries)
}
