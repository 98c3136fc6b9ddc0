package runtime

import (
	"context"
	"fmt"
	"math"
	"sync"
)

// WithPeerTxCredit makes the flow control of a stream manual, over h2 and h3:
// on each connection no more than n bytes of payload, at least 1, are delivered
// until AddPeerTxCredit lets more through; what is between the parts of a
// multipart response needs none. The peer may send ahead of it: over h2 up to
// 4 KiB, over h3 up to 4 MiB. Other protocols are not concerned, as in lws. It is
// what lws has as manual_initial_tx_credit, and for NewStream: Fetch and Open
// refuse it.
func WithPeerTxCredit(n uint32) StreamOption { return creditOption(n) }

type creditOption uint32

func (o creditOption) apply(c *call) { c.options = append(c.options, o) }

func (o creditOption) fill(s *Stream) error {
	if s.x != nil { // nobody could add to it
		return fmt.Errorf("%w: WithPeerTxCredit is for NewStream", ErrUnsupported)
	}
	s.credit = &Credit{initial: max(uint64(o), 1), more: make(chan struct{}, 1)}
	return nil
}

// AddPeerTxCredit lets n more bytes of payload through on the present
// connection. Without WithPeerTxCredit it does nothing.
func (s *Stream) AddPeerTxCredit(n uint32) { s.credit.add(uint64(n)) }

// A Credit is how much payload a peer may still send. Its methods may be called
// from any goroutine.
type Credit struct {
	initial uint64
	more    chan struct{} // has a value if there is credit since it was last looked for

	mu   sync.Mutex
	left uint64
}

// PeerTxCredit returns the credit of the peer, or nil if there is no limit.
func (l *Link) PeerTxCredit() *Credit { return l.s.credit }

func (c *Credit) add(n uint64) {
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

// restart begins a new connection.
func (c *Credit) restart() {
	if c != nil {
		c.mu.Lock()
		c.left = 0
		c.mu.Unlock()
		c.add(c.initial)
	}
}

// Take takes credit for 1 to n bytes, and waits until there is some.
func (c *Credit) Take(ctx context.Context, n int) (int, error) {
	n, err := c.Wait(ctx, n) // 0 with an error
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left -= uint64(n)
	return n, err
}

// Wait returns for how many bytes there is credit, at most n, and waits until
// there is some. Only one goroutine may wait at a time, and only it may Take.
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
