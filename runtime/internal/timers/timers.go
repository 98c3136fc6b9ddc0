// Package timers multiplexes any number of timers on one timer of the Go runtime.
package timers

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Timers are the timers of a context. They share one timer of the Go runtime, which
// runs until the earliest of them, and is stopped while none runs.
//
// As in lws 5.0.0 (lib/core-net/sorted-usec-list.c) there are two lists; those in
// the second wake the system.
//
// Methods are safe for concurrent use. All except Close may be called with locks
// held.
type Timers struct {
	wake func(time.Time) // may be nil

	base  time.Time    // zero of the clock
	slept atomic.Int64 // nanoseconds that the Go clock has missed; see Resumed

	mu    sync.Mutex
	lists [2]queue
	timer *time.Timer
	armed int64 // when timer expires; never if it is stopped
	busy  bool  // fire is running and will see all changes

	earliest int64 // time of the first timer in the second list
	reported int64 // latest value of earliest passed to wake
	waking   bool  // callWake is running

	closed bool
	calls  sync.WaitGroup // of fire and callWake
}

// never is the time of a timer that does not run.
const never = math.MaxInt64

// A Timer is started and stopped by Timers. Its zero value, with Owner set, is
// ready to use. The fields must not change while it runs.
type Timer struct {
	// Owner.Expire is called after the duration, once for each Start. If the timer
	// is being stopped or restarted at that moment, it may still be called, so the
	// owner must check whether the call applies. It must not block.
	Owner interface{ Expire(*Timer) }

	at    int64 // on the clock of Timers
	place int32 // 1 + index in its list; 0 if it does not run

	Wakes bool // the timer is worth waking the system for
}

// New returns Timers without running timers. wake, if not nil, is called when the
// earliest time of a timer with Wakes changes, with that time or the zero time if
// there is none. The calls do not overlap, and run on a goroutine of their own.
func New(wake func(time.Time)) *Timers {
	return &Timers{wake: wake, base: time.Now(), armed: never, earliest: never, reported: never}
}

// Now returns the time since New in nanoseconds, including the time added by
// Resumed.
func (w *Timers) Now() int64 { return int64(time.Since(w.base)) + w.slept.Load() }

// Time returns time.Now plus the time added by Resumed.
func (w *Timers) Time() time.Time { return time.Now().Add(time.Duration(w.slept.Load())) }

// Start starts or restarts a timer, which expires after d. It has no effect after
// Close.
func (w *Timers) Start(t *Timer, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	now := w.Now()
	t.at = now + min(max(int64(d), 0), never-1-now)
	w.list(t).put(t)
	w.armLocked(now)
}

// Stop stops a timer, and reports whether it was running. If not, a call of Expire
// may still follow.
func (w *Timers) Stop(t *Timer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.place == 0 {
		return false
	}
	w.list(t).remove(t)
	w.armLocked(0)
	return true
}

// list returns the list that t belongs to.
func (w *Timers) list(t *Timer) *queue {
	if t.Wakes {
		return &w.lists[1]
	}
	return &w.lists[0]
}

// armLocked starts the Go timer for the earliest time. now is the current time, or 0
// if the caller does not know it.
func (w *Timers) armLocked(now int64) {
	if w.busy || w.closed {
		return
	}
	earliest := w.lists[1].earliest()
	if earliest != w.earliest {
		w.earliest = earliest
		if w.wake != nil && !w.waking {
			w.waking = true
			w.calls.Add(1)
			go w.callWake()
		}
	}
	next := min(earliest, w.lists[0].earliest())
	if next == w.armed {
		return
	}
	w.armed = next
	if next == never {
		w.timer.Stop()
		return
	}
	if now == 0 {
		now = w.Now()
	}
	d := time.Duration(max(next-now, 0))
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.fire)
	} else {
		w.timer.Reset(d)
	}
}

// fire calls the owners of all timers that have expired.
func (w *Timers) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy || w.closed {
		return
	}
	w.calls.Add(1)
	defer w.calls.Done()
	w.busy, w.armed = true, never
	for now := w.Now(); ; {
		list := &w.lists[0]
		if w.lists[1].earliest() < list.earliest() {
			list = &w.lists[1]
		}
		if list.earliest() > now {
			if now = w.Now(); list.earliest() > now {
				break
			}
		}
		t := (*list)[0].timer
		list.remove(t)
		w.mu.Unlock()
		t.Owner.Expire(t)
		w.mu.Lock()
	}
	w.busy = false
	w.armLocked(0)
}

// callWake calls wake until it has received the latest time. It runs on a goroutine
// of its own because callers of Start and Stop hold locks.
func (w *Timers) callWake() {
	defer w.calls.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.reported != w.earliest {
		w.reported = w.earliest
		var at time.Time
		if w.reported != never {
			at = time.Now().Add(time.Duration(w.reported - w.Now()))
		}
		w.mu.Unlock()
		w.wake(at)
		w.mu.Lock()
	}
	w.waking = false
}

// Resumed advances the clock by the time that the system slept, and expires the
// timers that are due.
func (w *Timers) Resumed(asleep time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slept.Add(min(max(int64(asleep), 0), max(never/2-w.Now(), 0)))
	w.armed = never // the Go timer does not know the new time
	if w.timer != nil {
		w.timer.Stop()
	}
	w.armLocked(0)
}

// Close stops all timers, passes the zero time to wake, and waits until running
// calls of Expire and wake have returned.
func (w *Timers) Close() {
	w.mu.Lock()
	for i := range w.lists {
		for _, e := range w.lists[i] {
			e.timer.place = 0
		}
		w.lists[i] = nil
	}
	w.armLocked(0)
	w.closed = true
	w.mu.Unlock()
	w.calls.Wait()
}

// A queue is a 4-ary heap of timers.
type queue []entry

type entry struct {
	at    int64 // of the timer
	timer *Timer
}

// earliest returns the time of the first timer, or never.
func (h queue) earliest() int64 {
	if len(h) == 0 {
		return never
	}
	return h[0].at
}

// put adds a timer, or moves it if it is in the queue.
func (h *queue) put(t *Timer) {
	if t.place == 0 {
		*h = append(*h, entry{})
		h.up(len(*h)-1, entry{t.at, t})
		return
	}
	h.fix(int(t.place)-1, entry{t.at, t})
}

// remove removes a timer, which must be in the queue.
func (h *queue) remove(t *Timer) {
	i, last := int(t.place)-1, len(*h)-1
	t.place = 0
	e := (*h)[last]
	(*h)[last] = entry{}
	*h = (*h)[:last]
	if i < last {
		h.fix(i, e)
	}
	if n := cap(*h); n > 64 && last < n/4 { // return memory after a peak
		*h = append(make(queue, 0, n/2), *h...)
	}
}

// fix moves e to its position, given that position i is free.
func (h queue) fix(i int, e entry) {
	if i > 0 && e.at < h[(i-1)/4].at {
		h.up(i, e)
	} else {
		h.down(i, e)
	}
}

// set stores e at position i.
func (h queue) set(i int, e entry) {
	h[i] = e
	e.timer.place = int32(i + 1)
}

// up moves e to position i or an ancestor of it.
func (h queue) up(i int, e entry) {
	for i > 0 {
		parent := (i - 1) / 4
		if h[parent].at <= e.at {
			break
		}
		h.set(i, h[parent])
		i = parent
	}
	h.set(i, e)
}

// down moves e to position i or a descendant of it.
func (h queue) down(i int, e entry) {
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		least := first
		for j := first + 1; j < min(first+4, len(h)); j++ {
			if h[j].at < h[least].at {
				least = j
			}
		}
		if e.at <= h[least].at {
			break
		}
		h.set(i, h[least])
		i = least
	}
	h.set(i, e)
}
