package transport

import (
	"context"
	"sync"
	"testing"
)

// TestCreditTakers checks that two goroutines do not take the same credit.
func TestCreditTakers(t *testing.T) {
	for range 2000 {
		c := NewCredit(100)
		c.Restart()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				c.Take(ctx, 100)
				cancel()
			})
		}
		wg.Wait()
		cancel()
		if c.left > 100 {
			t.Fatalf("credit is %d", c.left)
		}
	}
}

// TestCreditAfterEnd checks that an attempt takes no credit after its end.
func TestCreditAfterEnd(t *testing.T) {
	c := NewCredit(100)
	c.Restart()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := c.Take(ctx, 100); n != 0 || err == nil {
		t.Errorf("Take after the end: %d, %v", n, err)
	}
}
