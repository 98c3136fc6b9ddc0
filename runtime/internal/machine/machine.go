// Package machine decides what a stream does next.
//
// A [Machine] is a value without a lock, clock or goroutine. Its runner calls
// [Machine.Next], carries out the [Effect], and reports the result with
// [Machine.Answer], until Next returns Yield. The other methods report external
// events; after each of them Next may return a new effect.
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

// An Action is the kind of an effect.
type Action uint8

const (
	// Yield means that there is nothing to do until the next event.
	Yield Action = iota
	// Begin means that an attempt begins: the runner updates the machine's Type and
	// stops the retry timer.
	Begin
	// Deliver means to call the State callback with State and Arg.
	Deliver
	// Attempt means to run the transport, and to call Ended when it has returned.
	Attempt
	// Cut means to end the running attempt: because a callback has returned
	// DisconnectMe, or, if Destroy is set, because the stream must be destroyed.
	Cut
	// Wait means to start the retry timer for Effect.Delay, and to call WaitOver
	// when it expires.
	Wait
	// Release means that the stream has ended.
	Release
	// Illegal means that State must not follow the current state. It is a bug of
	// the caller, which the runner logs; it then destroys the stream.
	Illegal
)

// An Effect is one thing for the runner to do.
type Effect struct {
	Do      Action
	State   policy.State // of Deliver and Illegal
	Arg     uint32       // of Deliver
	Destroy bool         // of Cut

	tries uint16
	least time.Duration
	exact bool // least is the exact wait
}

// Delay returns the duration of a Wait; random is uniform over 0 to 65535.
func (e Effect) Delay(r *policy.Retry, random uint16) time.Duration {
	if e.exact {
		return e.least
	}
	return max(r.Delay(e.tries, random), e.least)
}

// A Failure describes the end of an attempt or connection.
type Failure struct {
	Failed bool          // it did not serve its purpose
	Brief  bool          // it was connected, but too briefly to end the series of failures
	Arg    uint32        // of UNREACHABLE, and of UPSTREAM_LINK_RETRY
	Final  bool          // no attempt follows automatically
	Least  time.Duration // minimum wait before the next attempt
}

// A Machine is the state of one stream. Its zero value, with Type set, is that of a
// stream that has not been created. Machines are comparable.
type Machine struct {
	Type     *policy.StreamType // changed by the runner only at Begin
	Accepted bool               // by a listener or sink: it has a single connection, and ends with it
	Listener bool               // it never connects
	Remote   bool               // a proxy decides; an attempt is a link to the proxy

	state    policy.State // latest delivered state, ignoring unordered ones
	phase    phase
	requests requests
	tries    uint16 // failed attempts and brief connections in this series
	byCall   bool   // Connect started the attempt
	waiting  bool   // the retry timer runs
	cut      bool   // Cut has been returned for this attempt
	declined bool   // a callback has returned DisconnectMe in this attempt
	reached  bool   // CONNECTED has been delivered in this attempt
	silent   bool   // Remote, and the proxy has reported nothing on this link
	again    bool   // another attempt follows this connection
	replaced bool   // see Replaced

	// About the attempt that has ended; see Failure.
	final bool
	arg   uint32
	least time.Duration
}

// A phase is the position in the sequence of states.
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
	exhausted                // UNREACHABLE is next, followed by ALL_RETRIES_FAILED
	unlinked                 // UPSTREAM_LINK_RETRY is next, followed by a wait
	backingOff               // Wait is next
	allFailed                // ALL_RETRIES_FAILED is next
	destroying               // DESTROYING is next
	releasing                // Release is next
	gone                     // nothing is next
	phases                   // number of phases
)

// requests are the requests to the stream that it has not started to carry out.
type requests uint8

const (
	requestTx      requests = 1 << iota // by RequestTx, or the end of a wait
	requestConnect                      // by Connect
	requestStart                        // the first attempt of a nailed_up stream
	requestTimeout                      // the timer of StartTimeout has expired
	requestDestroy

	requestAttempt = requestTx | requestConnect | requestStart
)

// State returns the latest state that was or is being delivered, ignoring unordered
// states.
func (m *Machine) State() policy.State { return m.state }

// Running reports whether an attempt or its connection is running.
func (m *Machine) Running() bool { return m.phase == running }

// Attempting reports whether an attempt is running, or the callbacks before it.
func (m *Machine) Attempting() bool { return m.phase >= preparing && m.phase <= running }

// Connected reports whether the running attempt has delivered CONNECTED.
func (m *Machine) Connected() bool { return m.phase == running && m.reached }

// Waiting reports whether the retry timer runs.
func (m *Machine) Waiting() bool { return m.waiting }

// Retries reports, while DISCONNECTED or UNREACHABLE is being delivered, whether a
// wait and another attempt follow if the callback returns OK. It is true if a proxy
// decides.
func (m *Machine) Retries() bool {
	if m.Remote || m.Accepted || m.requests&(requestDestroy|requestConnect) != 0 {
		return m.Remote
	}
	return (m.phase == lost && m.again || m.phase == unreachable && !m.final) &&
		m.Type.Retry.Conceals(min(m.tries, math.MaxUint16-1)+1)
}

// Destroying reports whether the stream has been requested to end, or has ended.
func (m *Machine) Destroying() bool { return m.requests&requestDestroy != 0 || m.Gone() }

// Gone reports whether DESTROYING has been delivered, or is being delivered.
func (m *Machine) Gone() bool { return m.phase >= releasing }

// Pending reports whether Next has something to do while an attempt is running.
func (m *Machine) Pending() bool { return m.requests != 0 || m.declined && !m.cut }

// Request requests an attempt because the program wants to send. It reports whether
// there is something new to do; that is not so while an attempt is running or a
// retry is due.
func (m *Machine) Request() bool {
	if m.Listener || m.Attempting() || m.waiting || m.Destroying() {
		return false
	}
	m.requests |= requestTx
	return true
}

// Connect requests an immediate attempt and a new series of retries. It reports
// whether there is something new to do.
func (m *Machine) Connect() bool {
	if m.Listener || m.Attempting() || m.Destroying() {
		return false
	}
	m.requests |= requestConnect
	return true
}

// Start requests the first attempt of a stream that connects by itself.
func (m *Machine) Start() { m.requests |= requestStart }

// WaitOver reports that the retry timer has expired.
func (m *Machine) WaitOver() {
	m.waiting = false
	m.requests |= requestTx
}

// TimedOut reports that the timer of StartTimeout has expired.
func (m *Machine) TimedOut() { m.requests |= requestTimeout }

// CancelTimeout cancels TimedOut.
func (m *Machine) CancelTimeout() { m.requests &^= requestTimeout }

// Destroy requests the stream to end.
func (m *Machine) Destroy() { m.requests |= requestDestroy }

// Replace is like [Machine.Destroy], with the reason that a new policy defines the
// stream differently.
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

// Report is like [Machine.Reach] for a state that a proxy reports: any that may
// follow the current state.
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

// Reach accepts a state that the running attempt reports: CONNECTED, a user state,
// a verdict, or a state of a server. CONNECTED may be reported once, SERVER_UPGRADE
// only before it, and a verdict and SERVER_TXN only after it. If the effect is
// Deliver, the runner delivers the state and calls Answer; if it is Illegal, it
// calls Answer with DestroyMe.
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

// Ended reports that the attempt has returned. For a connection, it returns whether
// another attempt follows automatically. An accepted stream that was not connected
// simply ends, without UNREACHABLE.
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

// deliveries maps each phase to the state that is delivered in it.
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

// Next returns the next effect. The runner must carry it out and, for Begin,
// Deliver, Attempt and Illegal, call Answer, before it calls Next again.
func (m *Machine) Next() Effect {
	if m.requests&requestDestroy != 0 && m.phase >= unreachable && m.phase <= allFailed {
		m.phase = idle // no state follows an attempt that was not connected
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

// betweenAttempts implements Next without an attempt.
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

// duringAttempt implements Next during an attempt.
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

// deliver makes state the current state, if it may follow the previous one.
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

// Obey applies the result of a callback that does not belong to an Effect, such as
// Rx, Tx or one of a transport.
func (m *Machine) Obey(r policy.Result) {
	switch {
	case r == policy.DestroyMe:
		m.Destroy()
	case r != policy.OK && m.phase == running:
		m.declined = true
	}
}

// Answer reports the result of an effect: that of the callback for Deliver, and OK
// otherwise.
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

// over ends the phase after an attempt: the stream becomes idle or, if it was
// accepted, ends.
func (m *Machine) over() {
	m.phase = idle
	if m.Accepted {
		m.Destroy()
	}
}

// prepared continues after Begin.
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

// relink continues after the end of a link to the proxy. If the program ended the
// link, it needs no state for that.
func (m *Machine) relink() {
	m.phase = unlinked
	if m.declined {
		m.phase = backingOff
	}
}

// decided continues after CONNECTING.
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

// disconnected continues after DISCONNECTED.
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

// unreached continues after UNREACHABLE.
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

// count counts a failure, and reports whether the policy conceals it. It discards
// requests to send that came after the end of the attempt.
func (m *Machine) count() (concealed bool) {
	m.requests &^= requestTx
	if m.tries < math.MaxUint16 {
		m.tries++
	}
	return m.Type.Retry.Conceals(m.tries)
}
