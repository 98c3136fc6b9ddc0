package runtime

import (
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A State is a step in the life of a stream, such as CONNECTED. See [policy.State]
// for each.
type State = policy.State

// The states that a stream of this module may deliver.
const (
	StateCreating         = policy.StateCreating
	StateDisconnected     = policy.StateDisconnected
	StateUnreachable      = policy.StateUnreachable
	StateConnected        = policy.StateConnected
	StateConnecting       = policy.StateConnecting
	StateDestroying       = policy.StateDestroying
	StatePoll             = policy.StatePoll
	StateAllRetriesFailed = policy.StateAllRetriesFailed
	StateQoSAckRemote     = policy.StateQoSAckRemote
	StateQoSNackRemote    = policy.StateQoSNackRemote
	StateTimeout          = policy.StateTimeout
	StateServerTxn        = policy.StateServerTxn
	StateServerUpgrade    = policy.StateServerUpgrade

	// StateUpstreamLinkRetry occurs in streams that a proxy executes; see
	// [Options].Proxy.
	StateUpstreamLinkRetry = policy.StateUpstreamLinkRetry

	// StateUserBase is the lowest state that an http_resp_map may name.
	StateUserBase = policy.StateUserBase
)

// Flags describe the position of a piece of payload in its message.
type Flags = policy.Flags

const (
	FlagSOM          = policy.FlagSOM          // the piece starts a message
	FlagEOM          = policy.FlagEOM          // the piece ends a message
	FlagRelatedStart = policy.FlagRelatedStart // rx, empty: the parts of a multipart response begin
	FlagRelatedEnd   = policy.FlagRelatedEnd   // rx: the parts end with this piece
	FlagPerfJSON     = policy.FlagPerfJSON     // rx: performance figures as JSON
	FlagEnd          = policy.FlagEnd          // tx: nothing follows on this connection
)

// A Result is the answer of a callback. [policy.Result] has a table of what each
// value means in each state.
type Result = policy.Result

const (
	OK           = policy.OK
	TxDontSend   = policy.TxDontSend   // from Tx: send nothing; call Tx again after the next request
	DisconnectMe = policy.DisconnectMe // close the connection
	DestroyMe    = policy.DestroyMe    // destroy the stream
)

// Credentials provide the tokens, keys and certificates that a policy requires but
// does not hold. Package runtime/credentials implements them.
type Credentials = transport.Credentials

// A CookieJar keeps cookies. Package runtime/cookies implements it.
type CookieJar = transport.CookieJar

// A Logger receives warnings and errors. *slog.Logger implements it.
type Logger = transport.Logger

// A TrustError reports an unusable trust store.
type TrustError = transport.TrustError

// A ProxyError reports that a SOCKS5 proxy failed to make a connection.
type ProxyError = transport.ProxyError
