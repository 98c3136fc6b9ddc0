package sspcwire

import (
	"slices"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// follows lists the states that every build of lws's client accepts after each state.
// TIMEOUT and DESTROYING are always accepted. A QOS state after another requires a client
// with MQTT.
var follows = map[policy.State][]policy.State{
	policy.StateCreating:   {policy.StateConnecting, policy.StatePoll, policy.StateServerUpgrade},
	policy.StatePoll:       {policy.StateConnecting},
	policy.StateConnecting: {policy.StateUnreachable, policy.StateAuthFailed, policy.StateConnecting, policy.StateConnected, policy.StateDisconnected},
	policy.StateConnected: {policy.StateServerUpgrade, policy.StateServerTxn, policy.StateAuthFailed,
		policy.StateQoSAckRemote, policy.StateQoSNackRemote, policy.StateQoSAckLocal, policy.StateQoSNackLocal,
		policy.StateDisconnected, policy.StatePoll},
	policy.StateQoSAckRemote:  {policy.StateDisconnected, policy.StateQoSAckRemote, policy.StateQoSNackRemote},
	policy.StateQoSNackRemote: {policy.StateDisconnected, policy.StateQoSAckRemote, policy.StateQoSNackRemote},
	policy.StateQoSAckLocal:   {policy.StateDisconnected},
	policy.StateQoSNackLocal:  {},
	policy.StateDisconnected:  {policy.StateConnecting, policy.StatePoll},
	policy.StateUnreachable:   {policy.StateAllRetriesFailed, policy.StatePoll, policy.StateConnecting, policy.StateConnected},
	policy.StateAuthFailed:    {policy.StateAllRetriesFailed, policy.StateConnecting},

	policy.StateAllRetriesFailed: {policy.StateConnecting},
	policy.StateTimeout: {policy.StateConnecting, policy.StateConnected, policy.StateQoSAckRemote,
		policy.StateQoSNackRemote, policy.StatePoll, policy.StateDisconnected, policy.StateUnreachable},
	policy.StateServerTxn:     {policy.StateDisconnected},
	policy.StateServerUpgrade: {policy.StateServerTxn, policy.StateDisconnected},
}

// Accepts reports whether every client of lws accepts a CONNSTATE of next after one of s. A
// client that does not accept a state destroys the stream. User states are always accepted,
// and leave s unchanged.
func Accepts(s, next policy.State) bool {
	if next >= policy.StateUserBase {
		return true
	}
	accepted, ok := follows[s]
	return ok && (next == policy.StateTimeout || next == policy.StateDestroying || slices.Contains(accepted, next))
}

// Path returns the states to report between s and next so that the client of lws accepts
// next. It is empty if none are needed, or none help. It never contains POLL.
func Path(s, next policy.State) []policy.State {
	if Accepts(s, next) || next == policy.StatePoll {
		return nil
	}
	between := [...]policy.State{policy.StateConnecting, policy.StateDisconnected, policy.StateUnreachable, policy.StateConnected}
	for _, a := range between {
		if Accepts(s, a) && Accepts(a, next) {
			return []policy.State{a}
		}
	}
	for _, a := range between {
		for _, b := range between {
			if Accepts(s, a) && Accepts(a, b) && Accepts(b, next) {
				return []policy.State{a, b}
			}
		}
	}
	return nil
}
