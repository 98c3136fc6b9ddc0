package ws

import (
	"sync"
	"time"
)

// gateWait is how long reading may make no progress before what is to be sent
// is sent all the same. It is the program then that is waited for, and it may
// be waiting to send.
const gateWait = 20 * time.Millisecond

// A gate holds sending back while there is something to read. A nil gate is
// open.
type gate struct {
	mu       sync.Mutex
	isOpen   bool          // nothing is to be read: the network is waited for
	forever  bool          // nothing will be
	progress uint64        // counts the times that it closed
	opened   chan struct{} // closed when it opens; nil if nobody waits
}

func newGate() *gate { return new(gate) }

// quiet says whether reading waits for the network.
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

// open opens the gate for good.
func (g *gate) open() {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.forever = true
	g.mu.Unlock()
	g.quiet(true)
}

// wait waits until there is nothing to read.
func (g *gate) wait() {
	if g == nil {
		return
	}
	timer := time.NewTimer(gateWait)
	defer timer.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for seen := g.progress; !g.isOpen; {
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
			if g.progress == seen {
				return
			}
			seen = g.progress
			timer.Reset(gateWait)
		}
	}
}
