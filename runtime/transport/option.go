package transport

import "github.com/secure-streams/sspolicy/runtime/policy"

// An Option gives a new stream what its transport needs beside the policy. The
// transport's package makes it; a program passes it to NewStream, Open or Fetch.
type Option struct {
	// Protocol is one of the transport's. NewStream fails with ErrUnsupported
	// for a streamtype of another one.
	Protocol policy.Protocol
	// Data returns, for each stream, what Link.Data is to return.
	Data func() any
	// Connect starts an attempt at once, as nailed_up does.
	Connect bool
	// Accepted marks the stream as one whose peer has connected to it: it ends
	// with its connection.
	Accepted bool
	// Declined, if any, is called when a callback has declined an attempt, so that
	// Run was not called.
	Declined func()
	// End, if any, is called once the stream is gone.
	End func()
}

// CallOption and StreamOption make an Option one of package runtime's options.
func (Option) CallOption() {}

// StreamOption is described at CallOption.
func (Option) StreamOption() {}
