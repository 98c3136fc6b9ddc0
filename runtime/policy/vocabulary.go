package policy

import "strconv"

// Flags describe a piece of payload.
type Flags uint16

// The flags of lws, and FlagEnd.
const (
	FlagSOM          Flags = 1 << iota // the piece starts a message
	FlagEOM                            // the piece ends a message
	FlagPoll                           // not used by this module
	FlagRelatedStart                   // to Rx, without payload: the parts of a multipart response follow
	FlagRelatedEnd                     // to Rx: the last part ends with this piece
	FlagRideshare                      // not used by this module
	FlagPerfJSON                       // to Rx: performance figures as JSON, outside of messages

	// FlagEnd is returned by Tx when no payload will follow on this connection. A
	// raw stream then closes its sending direction. lws does not have it.
	FlagEnd Flags = 1 << 15
)

// A Result is the answer of a callback, which decides what happens to its stream.
//
//	            OK            DisconnectMe              DestroyMe
//	Creating    go on         as OK                     NewStream fails
//	Poll        attempt       no attempt, idle          destroyed
//	Connecting  attempt       no attempt; it counts     destroyed
//	                          as a failed one, unless
//	                          Connect started it
//	Connected,  go on         the connection is closed  closed, then
//	Rx, Tx, Ack,                                        destroyed
//	Nack, user                (before Connected, the
//	                          attempt fails and
//	                          Unreachable follows)
//	Unreachable backoff       no backoff, idle          destroyed
//	AllRetries- idle          as OK                     destroyed
//	Failed
//	Disconnec-  idle or       as OK                     destroyed
//	ted         backoff
//	Timeout     nothing       the connection or         closed, then
//	                          attempt ends              destroyed
//	Destroying  ignored       ignored                   ignored
//
// At the end of an HTTP response body (an empty piece with FlagEOM) DisconnectMe
// acts like OK, since the request is over. Any other value, and TxDontSend from a
// callback other than Tx, acts like DisconnectMe.
type Result int8

// The results.
const (
	OK           Result = 0
	TxDontSend   Result = 1  // from Tx: there is nothing to send before the next request
	DisconnectMe Result = -1 // close the connection
	DestroyMe    Result = -2 // destroy the stream
)

// String returns the name of the constant.
func (r Result) String() string {
	switch r {
	case OK:
		return "OK"
	case TxDontSend:
		return "TxDontSend"
	case DisconnectMe:
		return "DisconnectMe"
	case DestroyMe:
		return "DestroyMe"
	}
	return "Result(" + strconv.Itoa(int(r)) + ")"
}
