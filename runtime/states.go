package runtime

import "strconv"

// A State is what a stream tells its State callback. The numbers are those of
// libwebsockets (enum lws_ss_constate_t). States from [StateUserBase] up are
// made by the policy's http_resp_map.
type State uint16

const (
	// StateCreating is the first state of every stream. The stream can be used
	// already, and this is the last moment to set metadata that the endpoint
	// or the URL of a stream that connects at once is made of.
	StateCreating State = 1
	// StateDisconnected says that the connection which had given
	// StateConnected is gone.
	StateDisconnected State = 2
	// StateUnreachable says that one attempt failed before StateConnected.
	// Its arg is 1 if the resolver failed (that a name does not exist is not
	// such a failure), else 0. [Stream.Err] has the cause.
	StateUnreachable State = 3
	// StateAuthFailed is not used by any transport of this module.
	StateAuthFailed State = 4
	// StateConnected says that payload can flow. Over HTTP that is when the
	// headers of the response are in, not when the connection is up.
	StateConnected State = 5
	// StateConnecting says that an attempt is about to start. Metadata that
	// goes into headers can still be set; endpoint and URL are made up by now.
	StateConnecting State = 6
	// StateDestroying is the last state of every stream.
	StateDestroying State = 7
	// StatePoll says that a request to send, or the end of a retry wait, is
	// about to cause an attempt.
	StatePoll State = 8
	// StateAllRetriesFailed says that the retries which the policy conceals
	// are used up. The stream is idle now; Connect starts a new series.
	StateAllRetriesFailed State = 9
	// StateQoSAckRemote says that the peer took the message: over HTTP that
	// the response is complete and its status good.
	StateQoSAckRemote State = 10
	// StateQoSNackRemote says that the peer did not take the message: over
	// HTTP that the response is complete and its status not good.
	StateQoSNackRemote State = 11
	StateQoSAckLocal   State = 12 // defined by lws, used by nobody
	StateQoSNackLocal  State = 13 // defined by lws, used by nobody
	// StateTimeout says that the timer started by StartTimeout has run out.
	StateTimeout State = 14
	// StateServerTxn says that the headers of a request to a server are in.
	StateServerTxn State = 15
	// StateServerUpgrade says that an HTTP connection has become a WebSocket.
	StateServerUpgrade State = 16
	// StateEventWaitCancelled is not a part of the sequence of states.
	StateEventWaitCancelled State = 17
	// StateUpstreamLinkRetry is for streams that go through a proxy only; its
	// arg is how long, in ms, the link to the proxy has been down.
	StateUpstreamLinkRetry State = 18
	StateSinkJoin          State = 19 // in lws to a sink: a source wants to join; here it is what NewSink is given
	StateSinkPart          State = 20 // defined by lws, used by nobody

	// StateUserBase is the least state that an http_resp_map may name. Such
	// states come before StateConnected, in any order among the others.
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

// String returns the name that lws has for the state, without its prefix:
// "CREATING", "QOS_ACK_REMOTE". A user state is "USER_" and its number, a
// number that is no state "STATE_" and the number.
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

// nextStates says which state may follow which; the first entry is for a
// stream that has not been in any state. It is the table of lws 5.0.0
// (lib/secure-streams/secure-streams.c) in a build with MQTT, and three more
// that a server needs: CONNECTING to SERVER_UPGRADE, SERVER_UPGRADE to
// CONNECTED, TIMEOUT to SERVER_TXN.
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

// unordered reports whether a state stands outside the sequence: it may come
// at any time, and is not remembered as the state that the stream is in.
func (s State) unordered() bool {
	return s == StateEventWaitCancelled || s == StateUpstreamLinkRetry || s >= StateUserBase
}

// mayBecome reports whether next may follow s.
func (s State) mayBecome(next State) bool {
	return int(s) < len(nextStates) && next < 32 && nextStates[s]&(1<<next) != 0
}
