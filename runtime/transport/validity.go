package transport

import (
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/timers"
)

// A Validity watches one connection. If for a while nothing proves that the
// connection works, it requests a probe, such as a ping, and after a further while
// the end of the connection. Its methods are safe for concurrent use, and may be
// called on nil.
type Validity struct {
	timers       *timers.Timers
	ping, hangup time.Duration
	probe, end   func()

	mu      sync.Mutex
	stopped bool
	probed  bool  // since the latest proof
	proof   int64 // time of the latest proof, on the clock of timers
	timer   timers.Timer
}

// Watch starts to watch a connection that is valid now. When ping has passed
// without Confirm, it calls probe, which should send a message that the peer
// answers. When hangup has passed, it calls end once, which must close the
// connection with ErrNoValidity. Each call runs on a goroutine of its own. Either
// function may be nil, and a duration of 0 means never. As in lws, there is no
// probe unless ping is shorter than hangup. If wakes is set, Options.Wake receives
// the times. The caller must call Stop when the connection ends. Watch returns nil
// if there is nothing to call.
func (e *Env) Watch(ping, hangup time.Duration, wakes bool, probe, end func()) *Validity {
	if hangup > 0 && ping >= hangup || probe == nil {
		ping = 0
	}
	if end == nil {
		hangup = 0
	}
	if ping == 0 && hangup == 0 {
		return nil
	}
	v := &Validity{timers: e.timers, ping: ping, hangup: hangup, probe: probe, end: end}
	v.timer = timers.Timer{Owner: (*expiry)(v), Wakes: wakes}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.proof = v.timers.Now()
	v.timers.Start(&v.timer, v.nextLocked())
	return v
}

// nextLocked returns the time from the latest proof to the next step, or 0 if there
// is none.
func (v *Validity) nextLocked() time.Duration {
	if v.ping > 0 && !v.probed {
		return v.ping
	}
	return v.hangup
}

// leftLocked returns the time from now to the next step.
func (v *Validity) leftLocked() time.Duration {
	return v.nextLocked() - time.Duration(v.timers.Now()-v.proof)
}

// An expiry is a Validity in the role of the owner of its timer.
type expiry Validity

func (x *expiry) Expire(*timers.Timer) {
	v := (*Validity)(x)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped {
		return
	}
	// Confirm only records the time, since it may be called many times a second.
	if left := v.leftLocked(); left > 0 {
		v.timers.Start(&v.timer, left)
		return
	}
	if v.ping > 0 && !v.probed {
		v.probed = true
		if v.hangup > 0 {
			v.timers.Start(&v.timer, v.leftLocked())
		}
		go v.probe()
	} else {
		v.stopped = true
		go v.end()
	}
}

// Confirm records that the connection works in both directions: the peer has
// answered.
func (v *Validity) Confirm() {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.proof = v.timers.Now()
	if v.probed && !v.stopped {
		v.probed = false
		v.timers.Start(&v.timer, v.ping)
	}
}

// Probing reports whether the latest probe awaits Confirm. A probe that runs late checks
// this: something else may have proved that the connection works since the time of the probe.
func (v *Validity) Probing() bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.probed && !v.stopped
}

// Stop ends the watch. It does not wait for a running probe or end. It may be
// called more than once.
func (v *Validity) Stop() {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	v.timers.Stop(&v.timer)
}
