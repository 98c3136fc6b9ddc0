package http

import (
	"context"
	"io"

	"github.com/secure-streams/sspolicy/runtime"
)

// A credited is the body of a response that is read as far as there is credit.
type credited struct {
	io.ReadCloser
	ctx    context.Context
	credit *runtime.Credit
}

// Read reads from the body.
func (r *credited) Read(p []byte) (int, error) {
	// Waits until there is something, so that the end of the body needs no credit.
	if n, err := r.ReadCloser.Read(p[:0]); err != nil {
		return n, err
	}
	k, err := r.credit.Take(r.ctx, len(p))
	if err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(p[:k])
	if n < k {
		r.credit.Return(k - n)
	}
	return n, err
}
