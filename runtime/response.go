package runtime

import "fmt"

// A Response is the result of [Context.Fetch].
type Response struct {
	Body []byte

	// Status is the HTTP status, or 0 if the protocol has none.
	Status int

	// Parts are the parts of a multipart response that the policy splits
	// (http_multipart_ss_in), each with its own headers; see [SplitPart]. Body is
	// then their concatenation.
	Parts [][]byte

	// State is the state for the status in the policy's http_resp_map, or 0 if it
	// has none.
	State State

	s *Stream
}

// Metadata returns the value of the metadata item of that name: the value that the
// peer sent in the header that the item is mapped to, else the one set for the
// request, else "". The error is nil or ErrUnknownMetadata.
func (r *Response) Metadata(name string) (string, error) { return r.s.Metadata(name) }

// A NackError reports that the peer was reached but did not accept the request.
// errors.Is(err, ErrNack) is true for it.
type NackError struct {
	// Status is the HTTP status, or 0 if the protocol has none.
	Status int

	// State is the state for the status in the policy's http_resp_map, or 0 if it
	// has none.
	State State

	// Response is the response that came with the refusal. Only Fetch sets it.
	Response *Response
}

func (e *NackError) Error() string {
	text := ErrNack.Error()
	if e.Status != 0 {
		text += fmt.Sprintf(": status %d", e.Status)
	}
	if e.State != 0 {
		text += fmt.Sprintf(": %v", e.State)
	}
	return text
}

// Is reports whether target is ErrNack.
func (e *NackError) Is(target error) bool { return target == ErrNack }
