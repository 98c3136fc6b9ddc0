package runtime

import (
	"errors"
	"sync"
	"time"
)

// ErrNoValidity: nothing has proved for the time of the policy's svalidhup that
// the connection works in both directions, so it was given up.
var ErrNoValidity = errors.New("no sign of life from the peer")

// What holds for streamtypes without a "retry" in the policy, as in lws 5.0.0
// (lib/core/context.c).
const (
	defaultValidPing   = 40 * time.Second
	defaultValidHangup = 50 * time.Second
)

// Validity returns how long a connection may go without proof that it works in
// both directions before it is probed, and before it is given up; 0 is never.
// Without a retry in the policy they are 40 s and 50 s.
func (st *StreamType) Validity() (ping, hangup time.Duration) {
	if st.Retry == nil {
		return defaultValidPing, defaultValidHangup
	}
	return max(st.Retry.ValidPing, 0), max(st.Retry.ValidHangup, 0)
}

// A Validity watches over one connection: it asks for a probe, such as a ping,
// when there has been no proof for long that the connection works, and says
// when to give it up. Its methods may be called from any goroutine.
type Validity struct {
	timers       *timers
	ping, hangup time.Duration
	probe, end   func()

	mu      sync.Mutex
	stopped bool
	last    int64 // on the clock of timers, of the latest proof
	probed  bool  // since then
	timer   timer
}

// StartValidity starts to watch over a connection of a streamtype, which is
// good by now. probe is called on a goroutine of its own once the policy's
// svalidping has passed without Confirm; end likewise, once, for svalidhup: it
// is to close the connection, for the reason ErrNoValidity. Either may be nil.
// As in lws there is no probe if svalidhup is not the later one. With the
// policy's swake_validity the times are known to Options.Wake. Stop has to be
// called when the connection has ended. What it returns is nil, and may be used
// all the same, if the policy wants no watch.
func (c *Context) StartValidity(st *StreamType, probe, end func()) *Validity {
	ping, hangup := st.Validity()
	if hangup > 0 && ping >= hangup || probe == nil {
		ping = 0
	}
	if end == nil {
		hangup = 0
	}
	if ping == 0 && hangup == 0 {
		return nil
	}
	v := &Validity{timers: &c.timers, ping: ping, hangup: hangup, probe: probe, end: end}
	v.timer = timer{owner: v, wakes: st.SwakeValidity}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = v.timers.now()
	v.timers.start(&v.timer, v.next())
	return v
}

// next returns how long it is, from the latest proof, to what comes next; 0 if
// nothing does. mu is held.
func (v *Validity) next() time.Duration {
	if v.ping > 0 && !v.probed {
		return v.ping
	}
	return v.hangup
}

// left returns how long it still is to that. mu is held.
func (v *Validity) left() time.Duration {
	return v.next() - time.Duration(v.timers.now()-v.last)
}

func (v *Validity) expire(*timer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped {
		return
	}
	// Proofs only note the time: there may be many of them a second.
	if left := v.left(); left > 0 {
		v.timers.start(&v.timer, left)
		return
	}
	if v.ping > 0 && !v.probed {
		v.probed = true
		if v.hangup > 0 {
			v.timers.start(&v.timer, v.left())
		}
		go v.probe()
	} else {
		v.stopped = true
		go v.end()
	}
}

// Confirm says that the connection has just been proved to work in both
// directions: something has come from the peer that answers what was sent.
func (v *Validity) Confirm() {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = v.timers.now()
	if v.probed && !v.stopped {
		v.probed = false
		v.timers.start(&v.timer, v.ping)
	}
}

// Stop ends the watch. A call of probe or end may still be under way.
func (v *Validity) Stop() {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	v.timers.stop(&v.timer)
}
