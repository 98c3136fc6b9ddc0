package runtime

import (
	"context"
	"errors"
	"fmt"
)

// start makes the stream of a Fetch or Open, and begins an attempt.
func (c *Context) start(ctx context.Context, streamtype string, options []CallOption, collect bool) (*exchange, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	x := &exchange{ctx: ctx, collect: collect}
	x.cond.L = &x.mu
	if err := x.call.set(options); err != nil {
		return nil, err
	}
	s, err := c.NewStream(streamtype, Handlers{State: x.state, Rx: x.rx}, append(x.call.options, WithContext(ctx))...)
	if err != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		if errors.Is(err, ErrRefused) && x.err != nil {
			return nil, x.err
		}
		return nil, errors.Unwrap(err) // the caller names the streamtype
	}
	x.mu.Lock()
	over := x.over // the stream has already ended
	if !over {
		if ctx.Done() != nil {
			x.stop = context.AfterFunc(ctx, func() { x.abort(x.contextError()) })
		}
		if x.out.parts != nil {
			go x.pump()
		}
	}
	x.mu.Unlock()
	switch {
	case over:
	case collect:
		s.StartTimeout(0)
		_ = s.ServeAttempt()
	default:
		_ = s.RequestTx()
	}
	return x, nil
}

// contextError returns the reason for the end of the call's context. If there is no
// link to the proxy, that is part of the error.
func (x *exchange) contextError() error {
	err := contextError(x.ctx)
	if cause := x.s.Err(); errors.Is(cause, ErrLink) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// contextError returns the reason for the end of ctx.
func contextError(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}
