package runtime

import (
	"context"
	"fmt"
)

// Fetch makes one request and returns the whole response. It connects and retries
// as the policy specifies.
//
//	response, err := c.Fetch(ctx, "get_weather", runtime.WithMetadata("city", "Paris"))
//
// Over ws the body, if any, is sent as one message, and the response is the first
// message that the peer sends.
//
// The error, for use with [errors.Is] and [errors.As], is
//
//   - a *NackError, which is ErrNack, if the peer answered but did not
//     accept: over HTTP, with a status that the policy does not expect;
//   - ErrAllRetriesFailed and the cause of the last failure, if no peer was
//     reached;
//   - io.ErrUnexpectedEOF and the cause, if the response was cut short;
//   - ErrTooLong, ErrBodySpent, ErrNoBody, ErrTimeout (the policy's timeout_ms
//     has passed), or the error of reading the body;
//   - context.Canceled or context.DeadlineExceeded, if ctx is done: the
//     connection is closed, and there is no further attempt;
//   - ErrClosed, if the Context has been closed, and the errors of
//     [Context.NewStream] and [Stream.SetMetadata].
//
// Each call makes a stream of its own, and destroys it. Connections are kept for 30
// s after the last call, and shared with other streams of the streamtype.
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
