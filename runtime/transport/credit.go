package transport

import (
	"context"
	"math"
	"sync"
)

// A Credit counts the bytes of payload that a peer may still send on a connection.
// Add and Restart may be called concurrently with each other and with one goroutine
// that calls Take and Wait.
type Credit struct {
	initial uint64
	more    chan struct{} // holds a value if Add was called since the last Wait

	mu   sync.Mutex
	left uint64
}

// NewCredit returns a credit that is n bytes at the start of each connection. It is
// 0 until Restart.
func NewCredit(n uint64) *Credit { return &Credit{initial: n, more: make(chan struct{}, 1)} }

// Initial returns the number of bytes at the start of each connection, or 0 if c is
// nil.
func (c *Credit) Initial() uint64 {
	if c == nil {
		return 0
	}
	return c.initial
}

// Add adds n bytes, up to a total of 2^63-1. It does nothing if c is nil.
func (c *Credit) Add(n uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.left = min(c.left+n, math.MaxUint64/2)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// Restart sets the credit to its initial value, for a new connection. It does
// nothing if c is nil.
func (c *Credit) Restart() {
	if c != nil {
		c.mu.Lock()
		c.left = 0
		c.mu.Unlock()
		c.Add(c.initial)
	}
}

// Take waits for credit and takes from 1 to n bytes of it, as many as are
// available. n must be positive. When ctx is done, it returns 0 and the cause of
// ctx.
func (c *Credit) Take(ctx context.Context, n int) (int, error) {
	return c.wait(ctx, n, true)
}

// Wait is like [Credit.Take] but leaves the credit unchanged.
func (c *Credit) Wait(ctx context.Context, n int) (int, error) { return c.wait(ctx, n, false) }

func (c *Credit) wait(ctx context.Context, n int, take bool) (int, error) {
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx) // the credit belongs to another attempt
		}
		c.mu.Lock()
		k := min(uint64(n), c.left)
		if take {
			c.left -= k
		}
		c.mu.Unlock()
		if k > 0 {
			return int(k), nil
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}
