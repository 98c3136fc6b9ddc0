package policy

import "strconv"

// Flags describe how a piece of payload lies in its message.
type Flags uint16

const (
	FlagSOM          Flags = 1 << iota // the piece starts a message
	FlagEOM                            // the piece ends a message
	FlagPoll                           // not payload: cause the transaction
	FlagRelatedStart                   // rx, empty: a group of messages begins, the parts of a multipart response
	FlagRelatedEnd                     // rx: the group ends with this piece
	FlagRideshare                      // the payload starts with the name of a rideshare
	FlagPerfJSON                       // rx: performance figures as JSON, not part of any message

	// FlagEnd is sspolicy's own: from Tx, no payload will follow on this
	// connection. A raw stream then closes its direction of the connection.
	FlagEnd Flags = 1 << 15
)

// A Result tells what a callback wants to happen to its stream.
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
//	                          attempt is given up       destroyed
//	Destroying  ignored       ignored                   ignored
//
// At the end of an HTTP response body (an empty piece with FlagEOM) DisconnectMe
// acts as OK, since the transaction is over. Any other value, and TxDontSend
// from a callback other than Tx, acts as DisconnectMe.
type Result int8

const (
	OK           Result = 0
	TxDontSend   Result = 1  // from Tx: send nothing, and call Tx again only after the next request
	DisconnectMe Result = -1 // close the connection
	DestroyMe    Result = -2 // destroy the stream
)

// String returns the name of the result.
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
