package runtime

import (
	"context"
	"fmt"
)

// Fetch makes one request and returns the answer, when it is there as a whole.
// Connecting, and trying again, is done as the policy says.
//
//	answer, err := c.Fetch(ctx, "get_weather", runtime.WithMetadata("city", "Paris"))
//
// Over ws the body, if there is one, is sent as one message, and the answer is
// the first message that the peer sends.
//
// The error, to be looked at with [errors.Is] and [errors.As], is
//
//   - a *NackError, which is ErrNack, if the peer has answered and did not
//     accept: over HTTP, by another status than the policy expects;
//   - ErrAllRetriesFailed, and what the last attempt failed of, if no peer was
//     reached;
//   - io.ErrUnexpectedEOF, and the cause, if the answer was cut short;
//   - ErrTooLong, ErrBodySpent, ErrNoBody, ErrTimeout (the policy's timeout_ms
//     has run out), or what reading the body returned;
//   - context.Canceled or context.DeadlineExceeded, when ctx is done: the
//     connection is closed then, and the retries come to an end;
//   - ErrClosed, if the Context has been closed, and all that
//     [Context.NewStream] and [Stream.SetMetadata] may return.
//
// Each call makes a stream of its own, and destroys it. Connections are kept
// by the transport, so that costs little.
func (c *Context) Fetch(ctx context.Context, streamtype string, o ...CallOption) (*Response, error) {
	x, err := c.start(ctx, streamtype, o, true)
	if err != nil {
		return nil, fmt.Errorf("sspolicy: fetch %q: %w", streamtype, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for !x.over {
		x.cond.Wait()
	}
	r := &Response{Body: x.buf, Status: x.status, State: x.user, s: x.s}
	start := 0
	for _, end := range x.ends {
		r.Parts = append(r.Parts, x.buf[start:end:end])
		start = end
	}
	if nack, ok := x.err.(*NackError); ok {
		nack.Response = r
	}
	if x.err != nil {
		return nil, fmt.Errorf("sspolicy: fetch %q: %w", streamtype, x.err)
	}
	return r, nil
}

// A Response is the answer to a Fetch.
type Response struct {
	Body []byte

	// Status is the HTTP status; 0 if the protocol has none.
	Status int

	// Parts are those of a multipart answer that the policy has taken apart
	// (http_multipart_ss_in), each with its own headers, which SplitPart splits
	// off. Body then is all of them in a row.
	Parts [][]byte

	// State is what the policy's http_resp_map makes of the status; 0 if it is
	// not in there.
	State State

	s *Stream
}

// Metadata returns the value of the metadata item of that name: what the peer
// sent, if the item is mapped to a header that was in the response, else what
// was set for the request, else "". The error is nil or ErrUnknownMetadata.
func (r *Response) Metadata(name string) (string, error) { return r.s.Metadata(name) }

// A NackError says that the peer was reached, and did not accept the request.
// errors.Is(err, ErrNack) is true for it.
type NackError struct {
	// Status is the HTTP status; 0 if the protocol has none.
	Status int

	// State is what the policy's http_resp_map makes of the status; 0 if it is
	// not in there.
	State State

	// Response is the answer all the same. Only Fetch sets it.
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
