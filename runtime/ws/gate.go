package ws

import (
	"sync"
	"time"
)

// gateWait is how long a gate holds writes back while reads make no progress. The
// program is then blocked in Rx, possibly because it waits for a write.
const gateWait = 20 * time.Millisecond

// A gate holds writes back while there is data to read. A nil gate is always open.
type gate struct {
	mu       sync.Mutex
	isOpen   bool          // the reader waits for the network
	forever  bool          // stays open
	progress uint64        // number of times the gate has closed
	opened   chan struct{} // closed when the gate opens; nil without waiters
}

func newGate() *gate { return new(gate) }

// quiet tells the gate whether the reader waits for the network.
func (g *gate) quiet(q bool) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isOpen = q || g.forever
	if !q {
		g.progress++
	}
	if g.isOpen && g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// open opens the gate permanently.
func (g *gate) open() {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.forever = true
	g.mu.Unlock()
	g.quiet(true)
}

// wait waits until the gate is open.
func (g *gate) wait() {
	if g == nil {
		return
	}
	timer := time.NewTimer(gateWait)
	defer timer.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for progress := g.progress; !g.isOpen; {
		if g.opened == nil {
			g.opened = make(chan struct{})
		}
		opened := g.opened
		g.mu.Unlock()
		late := false
		select {
		case <-opened:
		case <-timer.C:
			late = true
		}
		g.mu.Lock()
		if late {
			if g.progress == progress {
				return
			}
			progress = g.progress
			timer.Reset(gateWait)
		}
	}
}
