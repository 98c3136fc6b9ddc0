package runtime

import "strconv"

// Handlers are the callbacks of a stream. Any of them may be nil: without Rx
// payload is thrown away, without Tx nothing is ever sent, without State each
// state is taken as answered with OK.
type Handlers struct {
	// State is told of each state as it is reached. What arg means depends on
	// the state; mostly it is 0.
	State func(s *Stream, state State, arg uint32) Result

	// Rx gets payload. buf is only valid during the call. Until Rx returns no
	// more is read, so that a slow reader slows the peer down.
	Rx func(s *Stream, buf []byte, flags Flags) Result

	// Tx puts payload into buf and returns how many bytes, with flags that say
	// how they lie in the message. ordinal counts the Tx calls of this stream
	// from 0. len(buf) is at least 1 and may change from call to call. A Tx
	// that has nothing to send returns TxDontSend, and is called again after
	// the next RequestTx. Where streamtypes share a request, Rideshare says
	// whose message is asked for.
	Tx func(s *Stream, ordinal uint32, buf []byte) (n int, flags Flags, r Result)
}

// Flags say how a piece of payload lies in its message.
type Flags uint16

const (
	FlagSOM          Flags = 1 << iota // the piece starts a message
	FlagEOM                            // the piece ends a message
	FlagPoll                           // not payload: cause the transaction
	FlagRelatedStart                   // rx, empty: a group of messages begins, the parts of a multipart answer
	FlagRelatedEnd                     // rx: the group ends with this piece
	FlagRideshare                      // the payload starts with the name of a rideshare
	FlagPerfJSON                       // rx: performance figures as JSON, not a part of any message
)

// A Result is what a callback wants to happen to its stream.
//
//	            OK            DisconnectMe              DestroyMe
//	Creating    go on         as OK                     NewStream fails
//	Poll        attempt       no attempt, idle          destroyed
//	Connecting  attempt       no attempt; it counts     destroyed
//	                          as a failed one, unless
//	                          Connect asked for it
//	Connected,  go on         the connection is closed  closed, then
//	Rx, Tx, Ack,                                        destroyed
//	Nack, user                (before Connected, as a
//	                          user state is, the attempt
//	                          fails: Unreachable follows)
//	Unreachable backoff       no backoff, idle          destroyed
//	AllRetries- idle          as OK                     destroyed
//	Failed
//	Disconnec-  idle or       as OK                     destroyed
//	ted         backoff
//	Timeout     nothing       the connection or         closed, then
//	                          attempt is given up       destroyed
//	Destroying  ignored       ignored                   ignored
//
// The end of an HTTP response body (an empty piece with FlagEOM) treats
// DisconnectMe as OK, since the transaction is over. A result that is none of
// the four, and TxDontSend from a callback other than Tx, act as DisconnectMe.
type Result int8

const (
	OK           Result = 0
	TxDontSend   Result = 1  // from Tx: nothing is sent, and no Tx follows until it is asked for
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
