package transport

import (
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/timers"
)

// A Timer calls a function after a duration, which includes the time passed to
// Context.Resumed. Its methods are safe for concurrent use.
type Timer struct {
	env *Env
	f   func()

	mu      sync.Mutex
	running bool
	due     int64 // on the clock of the environment's timers
	timer   timers.Timer
}

// NewTimer returns a stopped timer. It calls f on a goroutine of its own. If wakes
// is set, Options.Wake receives the time.
func (e *Env) NewTimer(wakes bool, f func()) *Timer {
	t := &Timer{env: e, f: f}
	t.timer = timers.Timer{Owner: (*timerExpiry)(t), Wakes: wakes}
	return t
}

// Reset starts or restarts the timer.
func (t *Timer) Reset(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running, t.due = true, t.env.timers.Now()+int64(d)
	t.env.timers.Start(&t.timer, d)
}

// Stop stops the timer. It does not wait for a call that has begun.
func (t *Timer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = false
	t.env.timers.Stop(&t.timer)
}

// A timerExpiry is a Timer in the role of the owner of its timer.
type timerExpiry Timer

func (t *timerExpiry) Expire(*timers.Timer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch left := t.due - t.env.timers.Now(); {
	case !t.running: // stopped at this moment
	case left > 0: // or restarted
		t.env.timers.Start(&t.timer, time.Duration(left))
	default:
		t.running = false
		go t.f()
	}
}

// Now returns the current time: time.Now plus the time passed to Context.Resumed.
func (e *Env) Now() time.Time { return e.timers.Time() }
