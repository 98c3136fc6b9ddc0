package sim

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A moment is an occurrence in a run that an event of the plan can precede or follow by
// nanoseconds.
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

// A cue ties an event to a moment of a host rather than to a time. Related events, such as
// a timeout and the end of a response, then nearly coincide, but still have an order.
type cue struct {
	moment moment
	host   string
	nth    int           // index of the moment, counted from 1 when the event is armed
	offset time.Duration // from the moment; negative offsets require a moment that is known in advance
	limit  time.Duration // latest end of a fault, from the start of the run

	seen  int          // moments so far; guarded by the cues of the world
	began atomic.Int64 // start of the event, from the start of the run; 0 before
}

// randomCue returns a cue for an event of a host.
func randomCue(d draws, host string, limit time.Duration) *cue {
	return &cue{moment: moment(d.IntN(int(moments))), host: host, nth: 1 + d.IntN(1+d.IntN(5)), limit: limit}
}

// again returns a fresh copy of a cue.
func (c *cue) again() *cue {
	if c == nil {
		return nil
	}
	return &cue{moment: c.moment, host: c.host, nth: c.nth, offset: c.offset, limit: c.limit}
}

func (c *cue) String() string {
	if c.offset < 0 {
		return fmt.Sprintf("%v before %v %d at %s", -c.offset, c.moment, c.nth, c.host)
	}
	return fmt.Sprintf("%v after %v %d at %s", c.offset, c.moment, c.nth, c.host)
}

// arm makes an event wait for its moment.
func (w *world) arm(e *event) {
	w.cues.Lock()
	defer w.cues.Unlock()
	w.armed = append(w.armed, e)
}

// moment reports a moment of a host, which is now or later.
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
