package transport

import (
	"context"
	"math"
	"sync"
)

// A Credit is how much payload a peer may still send, in bytes. Its methods may
// be called from any goroutine.
type Credit struct {
	initial uint64
	more    chan struct{} // holds a value if credit was added since the last look

	mu   sync.Mutex
	left uint64
}

// NewCredit returns a credit that is n bytes on each connection, before Add.
func NewCredit(n uint64) *Credit { return &Credit{initial: n, more: make(chan struct{}, 1)} }

// Add adds n bytes. It does nothing if c is nil.
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

// Restart begins a new connection. It does nothing if c is nil.
func (c *Credit) Restart() {
	if c != nil {
		c.mu.Lock()
		c.left = 0
		c.mu.Unlock()
		c.Add(c.initial)
	}
}

// Take waits until there is credit, and takes it for 1 to n bytes.
func (c *Credit) Take(ctx context.Context, n int) (int, error) {
	n, err := c.Wait(ctx, n) // 0 with an error
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left -= uint64(n)
	return n, err
}

// Wait waits until there is credit, and returns for how many bytes, at most n.
// Only one goroutine may wait at a time, and only it may Take.
func (c *Credit) Wait(ctx context.Context, n int) (int, error) {
	for {
		c.mu.Lock()
		k := int(min(uint64(n), c.left))
		c.mu.Unlock()
		if k > 0 {
			return k, nil
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}
