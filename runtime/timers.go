package runtime

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// timers is what all timers of a context are in. There is one timer of the Go
// runtime for all of them, started for the earliest; when none is waiting it is
// stopped, so that nothing ticks when nothing is due.
//
// As in lws 5.0.0 (lib/core-net/sorted-usec-list.c) there are two lists: what is
// in the second is worth waking the system for, see Options.Wake.
type timers struct {
	wake func(time.Time) // Options.Wake

	base  time.Time    // the clock counts from here
	slept atomic.Int64 // what it did not see, see Context.Resumed

	mu    sync.Mutex
	lists [2]timerHeap
	timer *time.Timer
	armed int64 // what timer is started for; noTimer if it is not
	busy  bool  // fire is under way, and will see what comes and goes

	earliest, told int64 // of the second list: now, and as Options.Wake knows it
	telling        bool

	closed bool
	calls  sync.WaitGroup // fire, and calls of wake
}

// noTimer is the time of a timer that is not there.
const noTimer = math.MaxInt64

// A timer is started and stopped by timers. Its zero value, with owner set, is
// good.
type timer struct {
	// owner is told, once for each start, when the time is up; also if the timer
	// is stopped or started anew at that very moment, so it has to look whether
	// the timer still means something to it. It must not wait for anything:
	// others are waiting for it.
	owner interface{ expire(*timer) }
	at    int64 // on the clock of timers
	place int32 // 1 + the index in its list; 0 if it is in none
	wakes bool  // it is for the second list
}

func (w *timers) init(wake func(time.Time)) {
	w.wake, w.base = wake, time.Now()
	w.armed, w.earliest, w.told = noTimer, noTimer, noTimer
}

// now returns the time on the clock of timers.
func (w *timers) now() int64 { return int64(time.Since(w.base)) + w.slept.Load() }

// start starts a timer, or starts it anew.
func (w *timers) start(t *timer, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	now := w.now()
	t.at = now + min(max(int64(d), 0), noTimer-1-now)
	w.list(t).put(t)
	w.arm(now)
}

// stop stops a timer. It reports false if the timer was not running: it has
// never been started, or its owner has been told, or is just being told.
func (w *timers) stop(t *timer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.place == 0 {
		return false
	}
	w.list(t).remove(t)
	w.arm(0)
	return true
}

func (w *timers) list(t *timer) *timerHeap {
	if t.wakes {
		return &w.lists[1]
	}
	return &w.lists[0]
}

// arm starts the one timer for the earliest of all, if it is not. now is the
// time, or 0 if it is not known. mu is held.
func (w *timers) arm(now int64) {
	if w.busy || w.closed {
		return
	}
	waking := w.lists[1].earliest()
	if waking != w.earliest {
		w.earliest = waking
		if w.wake != nil && !w.telling {
			w.telling = true
			w.calls.Add(1)
			go w.callWake()
		}
	}
	next := min(waking, w.lists[0].earliest())
	if next == w.armed {
		return
	}
	w.armed = next
	if next == noTimer {
		w.timer.Stop()
		return
	}
	if now == 0 {
		now = w.now()
	}
	d := time.Duration(max(next-now, 0))
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.fire)
	} else {
		w.timer.Reset(d)
	}
}

// fire tells the owners of all timers whose time is up.
func (w *timers) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy || w.closed {
		return
	}
	w.calls.Add(1)
	defer w.calls.Done()
	w.busy, w.armed = true, noTimer
	for now := w.now(); ; {
		list := &w.lists[0]
		if w.lists[1].earliest() < list.earliest() {
			list = &w.lists[1]
		}
		if list.earliest() > now {
			if now = w.now(); list.earliest() > now {
				break
			}
		}
		t := (*list)[0].timer
		list.remove(t)
		w.mu.Unlock()
		t.owner.expire(t)
		w.mu.Lock()
	}
	w.busy = false
	w.arm(0)
}

// callWake tells Options.Wake what it does not know yet. It runs on a goroutine
// of its own, since those who use timers hold locks.
func (w *timers) callWake() {
	defer w.calls.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.told != w.earliest {
		w.told = w.earliest
		var at time.Time
		if w.told != noTimer {
			at = time.Now().Add(time.Duration(w.told - w.now()))
		}
		w.mu.Unlock()
		w.wake(at)
		w.mu.Lock()
	}
	w.telling = false
}

// resumed puts the clock on.
func (w *timers) resumed(asleep time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slept.Add(min(max(int64(asleep), 0), max(noTimer/2-w.now(), 0)))
	w.armed = noTimer // for another time than that of the new clock
	if w.timer != nil {
		w.timer.Stop()
	}
	w.arm(0)
}

// close stops all timers and waits for what they have caused.
func (w *timers) close() {
	w.mu.Lock()
	for i := range w.lists {
		for _, e := range w.lists[i] {
			e.timer.place = 0
		}
		w.lists[i] = nil
	}
	w.arm(0)
	w.closed = true
	w.mu.Unlock()
	w.calls.Wait()
}

// A timerHeap is a list of timers of which the earliest is at hand: a heap in
// which each has four below it.
type timerHeap []timerEntry

type timerEntry struct {
	at    int64 // of the timer
	timer *timer
}

func (h timerHeap) earliest() int64 {
	if len(h) == 0 {
		return noTimer
	}
	return h[0].at
}

// put adds a timer, or puts it where it belongs by now.
func (h *timerHeap) put(t *timer) {
	if t.place == 0 {
		*h = append(*h, timerEntry{})
		h.up(len(*h)-1, timerEntry{t.at, t})
		return
	}
	h.fix(int(t.place)-1, timerEntry{t.at, t})
}

func (h *timerHeap) remove(t *timer) {
	i, last := int(t.place)-1, len(*h)-1
	t.place = 0
	e := (*h)[last]
	(*h)[last] = timerEntry{}
	*h = (*h)[:last]
	if i < last {
		h.fix(i, e)
	}
	if n := cap(*h); n > 64 && last < n/4 { // give back what many timers took
		*h = append(make(timerHeap, 0, n/2), *h...)
	}
}

// fix puts e at the free place i or where it belongs.
func (h timerHeap) fix(i int, e timerEntry) {
	if i > 0 && e.at < h[(i-1)/4].at {
		h.up(i, e)
	} else {
		h.down(i, e)
	}
}

func (h timerHeap) set(i int, e timerEntry) {
	h[i] = e
	e.timer.place = int32(i + 1)
}

func (h timerHeap) up(i int, e timerEntry) {
	for i > 0 {
		above := (i - 1) / 4
		if h[above].at <= e.at {
			break
		}
		h.set(i, h[above])
		i = above
	}
	h.set(i, e)
}

func (h timerHeap) down(i int, e timerEntry) {
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
