package policy

import "strconv"

// A State is a step in the life of a stream. The numbers are those of libwebsockets
// 5.0.0 (enum lws_ss_constate_t). States from [StateUserBase] on come from the
// policy's http_resp_map.
type State uint16

// The states of lws.
const (
	// StateCreating is the first state of every stream. Its methods may be called
	// from then on. If the stream connects at once, metadata for its endpoint and
	// URL must be set in this state.
	StateCreating State = 1
	// StateDisconnected reports the end of a connection that had reached
	// StateConnected.
	StateDisconnected State = 2
	// StateUnreachable reports that an attempt failed before StateConnected. Its
	// arg is 1 if the resolver failed, and 0 otherwise, including for a name that
	// does not exist. Stream.Err returns the cause.
	StateUnreachable State = 3
	// StateAuthFailed is defined by lws; this module does not use it.
	StateAuthFailed State = 4
	// StateConnected reports that payload can flow. Over HTTP it follows the
	// headers of the response, not the connection.
	StateConnected State = 5
	// StateConnecting reports that an attempt is about to start. Endpoint and URL
	// are fixed; metadata for headers can still be set.
	StateConnecting State = 6
	// StateDestroying is the last state of every stream.
	StateDestroying State = 7
	// StatePoll reports that a request to send, or the end of a wait, is about to
	// start an attempt.
	StatePoll State = 8
	// StateAllRetriesFailed reports that no retry follows. The stream is idle;
	// Connect starts a new series.
	StateAllRetriesFailed State = 9
	// StateQoSAckRemote reports that the peer accepted the message. Over HTTP, the
	// response is complete and its status means success.
	StateQoSAckRemote State = 10
	// StateQoSNackRemote reports that the peer did not accept the message. Over
	// HTTP, the response is complete and its status means failure.
	StateQoSNackRemote State = 11
	StateQoSAckLocal   State = 12 // not used by lws or this module
	StateQoSNackLocal  State = 13 // not used by lws or this module
	// StateTimeout reports that the timer of StartTimeout has expired.
	StateTimeout State = 14
	// StateServerTxn reports that a server has received the headers of a request.
	StateServerTxn State = 15
	// StateServerUpgrade reports that an HTTP connection has become a WebSocket.
	StateServerUpgrade State = 16
	// StateEventWaitCancelled is defined by lws; this module does not use it.
	StateEventWaitCancelled State = 17
	// StateUpstreamLinkRetry reports that a stream that a proxy executes has no
	// link to the proxy, and retries in a second. Its arg is the age of the stream
	// in milliseconds, as in lws.
	StateUpstreamLinkRetry State = 18
	StateSinkJoin          State = 19 // in lws, asks a sink to accept a source; see package sink
	StateSinkPart          State = 20 // not used by lws or this module

	// StateUserBase is the lowest state that an http_resp_map may name. Such a
	// state precedes StateConnected or StateUnreachable.
	StateUserBase State = 1000
)

// stateNames holds the names that lws uses.
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

// String returns lws's name of the state without its prefix, such as
// "QOS_ACK_REMOTE". A state from StateUserBase on is "USER_" and its number, an
// unknown one is "STATE_" and its number, and 0 is "none".
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	switch {
	case s == 0:
		return "none"
	case s >= StateUserBase:
		return "USER_" + strconv.Itoa(int(s))
	}
	return "STATE_" + strconv.Itoa(int(s))
}

// shortNames are the names of states in sequences, as docs/runtime.md writes them.
var shortNames = map[State]string{
	StateCreating: "CRE", StateDisconnected: "DIS", StateUnreachable: "UNR", StateConnected: "CON",
	StateConnecting: "CNG", StateDestroying: "DES", StatePoll: "POL", StateAllRetriesFailed: "ARF",
	StateQoSAckRemote: "ACK", StateQoSNackRemote: "NAK", StateTimeout: "TMO",
	StateServerTxn: "TXN", StateServerUpgrade: "UPG",
}

// Short returns the name of the state in sequences, such as "UNR", or that of
// String if it has none.
func (s State) Short() string {
	if name := shortNames[s]; name != "" {
		return name
	}
	return s.String()
}

// A stateSet has a bit for each state below 32.
type stateSet uint32

// nextStates holds the states that may follow each state; the first entry is for a
// stream without a state. It is the table of lws 5.0.0
// (lib/secure-streams/secure-streams.c) in a build with MQTT, plus four steps that
// servers need: CONNECTING to SERVER_UPGRADE, SERVER_UPGRADE to CONNECTED, TIMEOUT
// to SERVER_TXN and to SERVER_UPGRADE.
var nextStates = [...]stateSet{
	0: 1<<StateCreating | 1<<StateDestroying,
	StateCreating: 1<<StateConnecting | 1<<StateTimeout | 1<<StatePoll |
		1<<StateServerUpgrade | 1<<StateDestroying,
	StateDisconnected: 1<<StateConnecting | 1<<StateConnected | 1<<StateTimeout |
		1<<StatePoll | 1<<StateDestroying | 1<<StateUnreachable,
	StateUnreachable: 1<<StateAllRetriesFailed | 1<<StateTimeout | 1<<StatePoll |
		1<<StateUnreachable | 1<<StateConnecting | 1<<StateConnected |
		1<<StateDestroying,
	StateAuthFailed: 1<<StateAllRetriesFailed | 1<<StateTimeout | 1<<StateConnecting |
		1<<StateDestroying,
	StateConnected: 1<<StateServerUpgrade | 1<<StateServerTxn | 1<<StateAuthFailed |
		1<<StateQoSAckRemote | 1<<StateQoSNackRemote | 1<<StateQoSAckLocal |
		1<<StateQoSNackLocal | 1<<StateDisconnected | 1<<StateTimeout |
		1<<StateConnecting | 1<<StatePoll | 1<<StateDestroying,
	StateConnecting: 1<<StateUnreachable | 1<<StateAuthFailed | 1<<StateConnecting |
		1<<StateConnected | 1<<StateQoSAckRemote | 1<<StateQoSNackRemote |
		1<<StateTimeout | 1<<StatePoll | 1<<StateAllRetriesFailed |
		1<<StateDisconnected | 1<<StateDestroying | 1<<StateServerUpgrade,
	StateDestroying: 0,
	StatePoll: 1<<StateConnecting | 1<<StateTimeout | 1<<StateAllRetriesFailed |
		1<<StateDestroying,
	StateAllRetriesFailed: 1<<StateConnecting | 1<<StatePoll | 1<<StateTimeout |
		1<<StateUnreachable | 1<<StateDestroying,
	StateQoSAckRemote: 1<<StateDisconnected | 1<<StateTimeout | 1<<StateConnecting |
		1<<StateDestroying | 1<<StateQoSAckRemote | 1<<StateQoSNackRemote,
	StateQoSNackRemote: 1<<StateDisconnected | 1<<StateTimeout | 1<<StateDestroying |
		1<<StateQoSAckRemote | 1<<StateQoSNackRemote,
	StateQoSAckLocal:  1<<StateDisconnected | 1<<StateTimeout | 1<<StateDestroying,
	StateQoSNackLocal: 1<<StateDestroying | 1<<StateTimeout,
	StateTimeout: 1<<StateConnecting | 1<<StateConnected | 1<<StateQoSAckRemote |
		1<<StateQoSNackRemote | 1<<StatePoll | 1<<StateTimeout |
		1<<StateDisconnected | 1<<StateUnreachable | 1<<StateDestroying |
		1<<StateServerTxn | 1<<StateServerUpgrade,
	StateServerTxn: 1<<StateDisconnected | 1<<StateTimeout | 1<<StateServerTxn |
		1<<StateDestroying,
	StateServerUpgrade: 1<<StateServerUpgrade | 1<<StateServerTxn | 1<<StateTimeout |
		1<<StateDisconnected | 1<<StateDestroying | 1<<StateConnected,
}

// Unordered reports whether s is outside the sequence of states: it may occur at
// any time, and does not become the state of the stream.
func (s State) Unordered() bool {
	return s == StateEventWaitCancelled || s == StateUpstreamLinkRetry || s >= StateUserBase
}

// MayBecome reports whether next may follow s. The zero State is that of a stream
// before StateCreating.
func (s State) MayBecome(next State) bool {
	return int(s) < len(nextStates) && next < 32 && nextStates[s]&(1<<next) != 0
}
