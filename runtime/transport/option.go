package transport

import "github.com/secure-streams/sspolicy/runtime/policy"

// An Option gives a new stream what its transport needs in addition to the policy.
// The transport's package makes it; a program passes it to NewStream, Open or
// Fetch. Its functions must not block or call the stream.
type Option struct {
	// Protocol is the carrier of the streamtypes that the Option is for, one of the
	// transport's. For any other, NewStream returns ErrUnsupported.
	Protocol policy.Protocol

	// Data returns the value of Link.Data for a stream. It must not be nil, and is
	// called once for each stream.
	Data func() any

	// Connect starts an attempt at once, like nailed_up.
	Connect bool

	// Accepted marks a stream whose peer has connected to it: the stream is
	// destroyed when its connection ends.
	Accepted bool

	// Declined, if not nil, is called when the program returns DisconnectMe from
	// CONNECTING, so that Run is not called.
	Declined func()

	// End, if not nil, is called once after DESTROYING. It is not called if
	// NewStream fails before CREATING.
	End func()
}

// CallOption marks o as a runtime.CallOption.
func (Option) CallOption() {}

// StreamOption marks o as a runtime.StreamOption.
func (Option) StreamOption() {}
