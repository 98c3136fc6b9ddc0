// Package timers runs any number of timers on one timer of the Go runtime.
package timers

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Timers are the timers of a context. One timer of the Go runtime serves all of
// them and is started for the earliest; while none is started, nothing ticks.
//
// As in lws 5.0.0 (lib/core-net/sorted-usec-list.c) there are two lists: the
// timers of the second are worth waking the system for.
//
// Methods may be called from any goroutine, also with locks held.
type Timers struct {
	wake func(time.Time) // may be nil

	base  time.Time    // the clock counts from here
	slept atomic.Int64 // time that the clock has missed, see Resumed

	mu    sync.Mutex
	lists [2]queue
	timer *time.Timer
	armed int64 // when timer expires; never if it is stopped
	busy  bool  // fire is running, and will see all changes

	earliest int64 // of the second list
	reported int64 // the value of earliest that wake has got
	waking   bool  // callWake is running

	closed bool
	calls  sync.WaitGroup // of fire and callWake
}

// never is the time of a timer that does not run.
const never = math.MaxInt64

// A Timer is started and stopped by Timers. Its zero value, with Owner set, is
// ready for use.
type Timer struct {
	// Owner.Expire is called once for each start when the time is up, even if
	// the timer is stopped or restarted at that very moment: the owner has to
	// check whether the call still applies. It must not block.
	Owner interface{ Expire(*Timer) }
	Wakes bool // the timer is worth waking the system for

	at    int64 // on the clock of Timers
	place int32 // 1 + the index in its list; 0 if it is in none
}

// New returns timers without any timer. wake, if not nil, gets the earliest time
// of those with Wakes set, or the zero time if there is none, whenever it
// changes; calls do not overlap.
func New(wake func(time.Time)) *Timers {
	return &Timers{wake: wake, base: time.Now(), armed: never, earliest: never, reported: never}
}

// Now returns the time on the clock of w, in nanoseconds.
func (w *Timers) Now() int64 { return int64(time.Since(w.base)) + w.slept.Load() }

// Start starts or restarts a timer.
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

// Stop stops a timer. It reports false if the timer was not running: it was
// never started, or Expire has been called or is being called.
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

func (w *Timers) list(t *Timer) *queue {
	if t.Wakes {
		return &w.lists[1]
	}
	return &w.lists[0]
}

// armLocked sets the Go timer to the earliest time. now is the current time, or 0
// if the caller does not have it.
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

// callWake calls wake until it has the latest time. It has a goroutine of its
// own because the users of timers hold locks.
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

// Resumed advances the clock by a time that the system has slept, and fires what
// has become due.
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

// Close stops all timers, reports that none is left to wake for, and waits until
// the calls under way have returned.
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

func (h queue) earliest() int64 {
	if len(h) == 0 {
		return never
	}
	return h[0].at
}

// put adds a timer, or moves it to its new place.
func (h *queue) put(t *Timer) {
	if t.place == 0 {
		*h = append(*h, entry{})
		h.up(len(*h)-1, entry{t.at, t})
		return
	}
	h.fix(int(t.place)-1, entry{t.at, t})
}

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

// fix puts e, which is to be at the free place i, where it belongs.
func (h queue) fix(i int, e entry) {
	if i > 0 && e.at < h[(i-1)/4].at {
		h.up(i, e)
	} else {
		h.down(i, e)
	}
}

func (h queue) set(i int, e entry) {
	h[i] = e
	e.timer.place = int32(i + 1)
}

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
