package http

import (
	"context"
	"io"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// withCredit returns an Rx that waits for credit and takes it for the payload that
// it delivers.
func withCredit(ctx context.Context, c *transport.Credit, rx func([]byte, policy.Flags) error) func([]byte, policy.Flags) error {
	const ends = policy.FlagEOM | policy.FlagRelatedEnd
	return func(p []byte, flags policy.Flags) error {
		for len(p) > 0 {
			n, err := c.Take(ctx, len(p))
			if err != nil {
				return err
			}
			if n == len(p) {
				break
			}
			if err := rx(p[:n], flags&^ends); err != nil {
				return err
			}
			p, flags = p[n:], flags&ends
		}
		return rx(p, flags)
	}
}

// A creditBody is the body of a response over h2 that is read only while there is
// credit, so that the window of the peer closes. Delivery takes the credit.
type creditBody struct {
	io.ReadCloser
	ctx    context.Context
	credit *transport.Credit
}

// Read reads from the body.
func (r *creditBody) Read(p []byte) (int, error) {
	// The end of the body needs no credit, so wait for payload first.
	if n, err := r.ReadCloser.Read(p[:0]); err != nil {
		return n, err
	}
	k, err := r.credit.Wait(r.ctx, len(p))
	if err != nil {
		return 0, err
	}
	return r.ReadCloser.Read(p[:k])
}
