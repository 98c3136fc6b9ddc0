package sim

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A moment is something that happens in a run, and that an event of the plan can precede or
// follow by nanoseconds.
type moment int

const (
	dialed    moment = iota // a client has connected
	greeted                 // the first packet of the server arrives
	answered                // a packet of the server arrives
	requested               // a packet of the client arrives
	closed                  // a client closes a connection
	called                  // a State callback begins
	moments
)

var momentNames = [moments]string{
	dialed: "connection", greeted: "first packet of a server", answered: "packet of the server",
	requested: "packet of the client", closed: "end of a connection", called: "State callback",
}

func (m moment) String() string { return momentNames[m] }

// A cue makes an event wait for a moment of a host in place of a time. Events that matter
// to each other, such as a timeout and the end of a response, so come as close as at one
// instant, and still have an order.
type cue struct {
	moment moment
	host   string
	nth    int           // of the moments since the event is armed
	offset time.Duration // from the moment; events before it need one that is known in advance
	limit  time.Duration // when a fault ends at the latest, from the start of the run

	seen  int          // moments so far; guarded by the cues of the world
	began atomic.Int64 // when the event began, from the start of the run; 0 before
}

// randomCue returns a cue for an event of a host.
func randomCue(d draws, host string, limit time.Duration) *cue {
	return &cue{moment: moment(d.IntN(int(moments))), host: host, nth: 1 + d.IntN(1+d.IntN(5)), limit: limit}
}

// again returns a cue that has seen nothing.
func (c *cue) again() *cue {
	if c == nil {
		return nil
	}
	return &cue{moment: c.moment, host: c.host, nth: c.nth, offset: c.offset, limit: c.limit}
}

func (c *cue) String() string {
	if c.offset < 0 {
		return fmt.Sprintf("%v before the %d. %v at %s", -c.offset, c.nth, c.moment, c.host)
	}
	return fmt.Sprintf("%v after the %d. %v at %s", c.offset, c.nth, c.moment, c.host)
}

// arm makes an event wait for its moment.
func (w *world) arm(e *event) {
	w.cues.Lock()
	defer w.cues.Unlock()
	w.armed = append(w.armed, e)
}

// moment is called for each moment of a host. It is now, or at a later time.
func (w *world) moment(host string, m moment, at time.Time) {
	w.cues.Lock()
	defer w.cues.Unlock()
	for i := 0; i < len(w.armed); i++ {
		e := w.armed[i]
		if e.on.host != host || e.on.moment != m {
			continue
		}
		if e.on.seen++; e.on.seen < e.on.nth {
			continue
		}
		w.armed = append(w.armed[:i:i], w.armed[i+1:]...)
		i--
		now := time.Now()
		when := at.Add(e.on.offset)
		if !when.After(now) {
			when = at.Add(e.on.offset.Abs())
		}
		time.AfterFunc(when.Sub(now), func() {
			if w.calm.Load() {
				return
			}
			e.on.began.Store(int64(time.Since(w.tr.start)))
			w.do(e)
		})
	}
}
