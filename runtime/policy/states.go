package policy

import "strconv"

// A State is a step in the life of a stream. The numbers are those of
// libwebsockets 5.0.0 (enum lws_ss_constate_t). States from [StateUserBase] up
// come from the policy's http_resp_map.
type State uint16

const (
	// StateCreating is the first state of every stream. Its methods may be used
	// already. It is the last chance to set metadata that the endpoint or URL of
	// a stream that connects at once is made of.
	StateCreating State = 1
	// StateDisconnected reports the end of a connection that had reached
	// StateConnected.
	StateDisconnected State = 2
	// StateUnreachable reports that one attempt failed before StateConnected.
	// Its arg is 1 if the resolver failed (a name that does not exist is not
	// such a failure), else 0. Stream.Err returns the cause.
	StateUnreachable State = 3
	// StateAuthFailed is defined by lws; no transport of this module uses it.
	StateAuthFailed State = 4
	// StateConnected reports that payload can flow. Over HTTP it comes with the
	// headers of the response, not when the connection is made.
	StateConnected State = 5
	// StateConnecting reports that an attempt is about to start. Metadata that
	// goes into headers can still be set; endpoint and URL are fixed.
	StateConnecting State = 6
	// StateDestroying is the last state of every stream.
	StateDestroying State = 7
	// StatePoll reports that a request to send, or the end of a wait, is about
	// to cause an attempt.
	StatePoll State = 8
	// StateAllRetriesFailed reports that the retries which the policy conceals
	// are used up. The stream is idle; Connect starts a new series.
	StateAllRetriesFailed State = 9
	// StateQoSAckRemote reports that the peer accepted the message: over HTTP,
	// that the response is complete and its status means success.
	StateQoSAckRemote State = 10
	// StateQoSNackRemote reports that the peer did not accept the message: over
	// HTTP, that the response is complete and its status means failure.
	StateQoSNackRemote State = 11
	StateQoSAckLocal   State = 12 // defined by lws, used by nobody
	StateQoSNackLocal  State = 13 // defined by lws, used by nobody
	// StateTimeout reports that the timer of StartTimeout has expired.
	StateTimeout State = 14
	// StateServerTxn reports that a server has the headers of a request.
	StateServerTxn State = 15
	// StateServerUpgrade reports that an HTTP connection has become a WebSocket.
	StateServerUpgrade State = 16
	// StateEventWaitCancelled is not part of the sequence of states.
	StateEventWaitCancelled State = 17
	// StateUpstreamLinkRetry is for streams that a proxy fulfils; its arg is how
	// long, in ms, the link to the proxy has been down.
	StateUpstreamLinkRetry State = 18
	StateSinkJoin          State = 19 // in lws, tells a sink that a source wants to join
	StateSinkPart          State = 20 // defined by lws, used by nobody

	// StateUserBase is the lowest state that an http_resp_map may name. Such
	// states come before StateConnected, in any order relative to the others.
	StateUserBase State = 1000
)

var stateNames = [...]string{
	StateCreating:           "CREATING",
	StateDisconnected:       "DISCONNECTED",
	StateUnreachable:        "UNREACHABLE",
	StateAuthFailed:         "AUTH_FAILED",
	StateConnected:          "CONNECTED",
	StateConnecting:         "CONNECTING",
	StateDestroying:         "DESTROYING",
	StatePoll:               "POLL",
	StateAllRetriesFailed:   "ALL_RETRIES_FAILED",
	StateQoSAckRemote:       "QOS_ACK_REMOTE",
	StateQoSNackRemote:      "QOS_NACK_REMOTE",
	StateQoSAckLocal:        "QOS_ACK_LOCAL",
	StateQoSNackLocal:       "QOS_NACK_LOCAL",
	StateTimeout:            "TIMEOUT",
	StateServerTxn:          "SERVER_TXN",
	StateServerUpgrade:      "SERVER_UPGRADE",
	StateEventWaitCancelled: "EVENT_WAIT_CANCELLED",
	StateUpstreamLinkRetry:  "UPSTREAM_LINK_RETRY",
	StateSinkJoin:           "SINK_JOIN",
	StateSinkPart:           "SINK_PART",
}

// String returns lws's name of the state without its prefix: "CREATING",
// "QOS_ACK_REMOTE". A user state is "USER_" and its number; an unknown number is
// "STATE_" and the number.
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	if s >= StateUserBase {
		return "USER_" + strconv.Itoa(int(s))
	}
	return "STATE_" + strconv.Itoa(int(s))
}

// A stateSet has a bit for each state below 32.
type stateSet uint32

func states(list ...State) (set stateSet) {
	for _, s := range list {
		set |= 1 << s
	}
	return set
}

// nextStates holds the states that may follow each state; the first entry is for
// a stream that has not reached any. It is the table of lws 5.0.0
// (lib/secure-streams/secure-streams.c) in a build with MQTT, and three moves
// that servers need: CONNECTING to SERVER_UPGRADE, SERVER_UPGRADE to CONNECTED,
// TIMEOUT to SERVER_TXN.
var nextStates = [...]stateSet{
	0: states(StateCreating, StateDestroying),
	StateCreating: states(StateConnecting, StateTimeout, StatePoll,
		StateServerUpgrade, StateDestroying),
	StateDisconnected: states(StateConnecting, StateConnected, StateTimeout,
		StatePoll, StateDestroying, StateUnreachable),
	StateUnreachable: states(StateAllRetriesFailed, StateTimeout, StatePoll,
		StateUnreachable, StateConnecting, StateConnected, StateDestroying),
	StateAuthFailed: states(StateAllRetriesFailed, StateTimeout,
		StateConnecting, StateDestroying),
	StateConnected: states(StateServerUpgrade, StateServerTxn, StateAuthFailed,
		StateQoSAckRemote, StateQoSNackRemote, StateQoSAckLocal, StateQoSNackLocal,
		StateDisconnected, StateTimeout, StateConnecting, StatePoll, StateDestroying),
	StateConnecting: states(StateUnreachable, StateAuthFailed, StateConnecting,
		StateConnected, StateQoSAckRemote, StateQoSNackRemote, StateTimeout, StatePoll,
		StateAllRetriesFailed, StateDisconnected, StateDestroying, StateServerUpgrade),
	StateDestroying: 0,
	StatePoll: states(StateConnecting, StateTimeout, StateAllRetriesFailed,
		StateDestroying),
	StateAllRetriesFailed: states(StateConnecting, StatePoll, StateTimeout,
		StateUnreachable, StateDestroying),
	StateQoSAckRemote: states(StateDisconnected, StateTimeout, StateConnecting,
		StateDestroying, StateQoSAckRemote, StateQoSNackRemote),
	StateQoSNackRemote: states(StateDisconnected, StateTimeout, StateDestroying,
		StateQoSAckRemote, StateQoSNackRemote),
	StateQoSAckLocal:  states(StateDisconnected, StateTimeout, StateDestroying),
	StateQoSNackLocal: states(StateDestroying, StateTimeout),
	StateTimeout: states(StateConnecting, StateConnected, StateQoSAckRemote,
		StateQoSNackRemote, StatePoll, StateTimeout, StateDisconnected,
		StateUnreachable, StateDestroying, StateServerTxn),
	StateServerTxn: states(StateDisconnected, StateTimeout, StateServerTxn,
		StateDestroying),
	StateServerUpgrade: states(StateServerUpgrade, StateServerTxn, StateTimeout,
		StateDisconnected, StateDestroying, StateConnected),
}

// Unordered reports whether a state stands outside the sequence: it may come at
// any time, and does not become the state that a stream is in.
func (s State) Unordered() bool {
	return s == StateEventWaitCancelled || s == StateUpstreamLinkRetry || s >= StateUserBase
}

// MayBecome reports whether next may follow s; the zero State is that of a
// stream that has not reached any.
func (s State) MayBecome(next State) bool {
	return int(s) < len(nextStates) && next < 32 && nextStates[s]&(1<<next) != 0
}
