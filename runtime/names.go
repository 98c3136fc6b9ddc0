package runtime

import (
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A State is a step in the life of a stream; package policy describes each.
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

	// StateUserBase is the lowest state that an http_resp_map may name.
	StateUserBase = policy.StateUserBase
)

// Flags describe how a piece of payload lies in its message.
type Flags = policy.Flags

// Package policy describes each flag.
const (
	FlagSOM          = policy.FlagSOM
	FlagEOM          = policy.FlagEOM
	FlagRelatedStart = policy.FlagRelatedStart
	FlagRelatedEnd   = policy.FlagRelatedEnd
	FlagPerfJSON     = policy.FlagPerfJSON
	FlagEnd          = policy.FlagEnd
)

// A Result tells what a callback wants to happen to its stream; package policy
// has a table of what each means in which state.
type Result = policy.Result

const (
	OK           = policy.OK
	TxDontSend   = policy.TxDontSend   // from Tx: send nothing, and call Tx again only after the next request
	DisconnectMe = policy.DisconnectMe // close the connection
	DestroyMe    = policy.DestroyMe    // destroy the stream
)

// These names are explained where they are defined.
type (
	Credentials = transport.Credentials
	CookieJar   = transport.CookieJar
	Logger      = transport.Logger
	TrustError  = transport.TrustError
	ProxyError  = transport.ProxyError
)
