package runtime

// Handlers are the callbacks of a stream. Any of them may be nil: without Rx
// payload is dropped, without Tx nothing is sent, without State each state counts
// as answered with OK.
type Handlers struct {
	// State is called for each state that the stream reaches. The meaning of arg
	// depends on the state; mostly it is 0.
	State func(s *Stream, state State, arg uint32) Result

	// Rx receives payload. buf is only valid during the call. No more is read
	// until Rx returns, so that a slow reader slows the peer down; see also
	// [Stream.PauseRx].
	Rx func(s *Stream, buf []byte, flags Flags) Result

	// Tx puts payload into buf and returns how many bytes, with flags that say
	// how they lie in the message. ordinal counts the Tx calls of this stream
	// from 0. len(buf) is at least 1 and may change from call to call. A Tx that
	// has nothing to send returns TxDontSend, and is called again after the next
	// RequestTx. Where streamtypes share a request, Rideshare returns the one
	// whose message is wanted.
	Tx func(s *Stream, ordinal uint32, buf []byte) (n int, flags Flags, r Result)

	// TxFailed is called when nothing more can be sent on a connection from which
	// payload may still arrive.
	TxFailed func(s *Stream, err error)
}
