package runtime

import (
	"context"
	"fmt"
)

// Fetch makes one request and returns the whole response. It connects and retries
// as the policy says.
//
//	response, err := c.Fetch(ctx, "get_weather", runtime.WithMetadata("city", "Paris"))
//
// Over ws the body, if there is one, is sent as one message, and the response is
// the first message that the peer sends.
//
// The error, to be examined with [errors.Is] and [errors.As], is
//
//   - a *NackError, which is ErrNack, if the peer has answered and did not
//     accept: over HTTP, with another status than the policy expects;
//   - ErrAllRetriesFailed and the cause of the last failure, if no peer was
//     reached;
//   - io.ErrUnexpectedEOF and the cause, if the response was cut short;
//   - ErrTooLong, ErrBodySpent, ErrNoBody, ErrTimeout (the policy's timeout_ms
//     has passed), or the error of reading the body;
//   - context.Canceled or context.DeadlineExceeded, when ctx is done: the
//     connection is closed, and there is no further attempt;
//   - ErrClosed, if the Context has been closed, and the errors of
//     [Context.NewStream] and [Stream.SetMetadata].
//
// Each call makes a stream of its own, and destroys it. That costs little, since
// the transport keeps connections.
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
	r := &Response{Body: x.in.buf, Status: x.status, State: x.user, s: x.s}
	start := 0
	for _, end := range x.in.ends {
		r.Parts = append(r.Parts, x.in.buf[start:end:end])
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

// A Response is the result of a Fetch.
type Response struct {
	Body []byte

	// Status is the HTTP status; 0 if the protocol has none.
	Status int

	// Parts are those of a multipart response that the policy splits
	// (http_multipart_ss_in), each with its own headers; see SplitPart. Body then
	// is all of them in a row.
	Parts [][]byte

	// State is the state of the policy's http_resp_map for the status; 0 if it
	// has none.
	State State

	s *Stream
}

// Metadata returns the value of the metadata item of that name: what the peer
// sent, if it sent a header that the item is mapped to, else what was set for the
// request, else "". The error is nil or ErrUnknownMetadata.
func (r *Response) Metadata(name string) (string, error) { return r.s.Metadata(name) }

// A NackError reports that the peer was reached and did not accept the request.
// errors.Is(err, ErrNack) is true for it.
type NackError struct {
	// Status is the HTTP status; 0 if the protocol has none.
	Status int

	// State is the state of the policy's http_resp_map for the status; 0 if it
	// has none.
	State State

	// Response is the response all the same. Only Fetch sets it.
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
