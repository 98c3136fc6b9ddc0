package timers

import (
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A recorder is the owner of a timer, and records when it expired.
type recorder struct {
	timer Timer
	do    func()

	mu sync.Mutex
	at []time.Time
}

func (n *recorder) Expire(*Timer) {
	n.mu.Lock()
	n.at = append(n.at, time.Now())
	n.mu.Unlock()
	if n.do != nil {
		n.do()
	}
}

func (n *recorder) times() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}

// newTimers returns timers that are closed at the end of the test.
func newTimers(t testing.TB, wake func(time.Time)) *Timers {
	w := New(wake)
	t.Cleanup(w.Close)
	return w
}

// armedFor returns the time that the Go timer is started for.
func armedFor(w *Timers) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.armed)
}

// TestTimers starts and stops timers at random, and checks that each expires at its time
// unless it has been stopped.
func TestTimers(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			w := newTimers(t, nil)
			all := make([]recorder, 300)
			want := make([][]time.Time, len(all))
			pending := make([]time.Time, len(all))
			settle := func() { // moves due times from pending to want
				for i, at := range pending {
					if !at.IsZero() && !at.After(time.Now()) {
						want[i], pending[i] = append(want[i], at), time.Time{}
					}
				}
			}
			for i := range all {
				all[i].timer = Timer{Owner: &all[i], Wakes: r.IntN(2) == 0}
			}
			for range 5000 {
				synctest.Wait()
				settle()
				i := r.IntN(len(all))
				switch r.IntN(8) {
				case 0, 1, 2, 3:
					d := time.Duration(1 + r.IntN(1000))
					w.Start(&all[i].timer, d)
					pending[i] = time.Now().Add(d)
				case 4, 5:
					if got := w.Stop(&all[i].timer); got == pending[i].IsZero() {
						t.Fatalf("Stop of a timer that expires at %v returns %v", pending[i], got)
					}
					pending[i] = time.Time{}
				default:
					time.Sleep(time.Duration(r.IntN(20)))
				}
			}
			time.Sleep(time.Second)
			settle()
			for i := range all {
				if !slices.Equal(all[i].times(), want[i]) {
					t.Errorf("seed %d: timer %d expired at %v, want %v", seed, i, all[i].times(), want[i])
				}
			}
			if armedFor(w) != never || len(w.lists[0])+len(w.lists[1]) != 0 {
				t.Error("a timer is left after all have expired")
			}
		})
	}
}

// TestTimersFromInside checks Start and Stop inside Expire.
func TestTimersFromInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimers(t, nil)
		var again, other recorder
		again.timer.Owner, other.timer.Owner = &again, &other
		again.do = func() {
			if len(again.times()) < 3 {
				w.Start(&again.timer, time.Duration(2-len(again.times()))*time.Second) // 1 s, then at once
			}
			w.Stop(&other.timer)
		}
		start := time.Now()
		w.Start(&again.timer, time.Second)
		w.Start(&other.timer, time.Second+1)
		time.Sleep(time.Minute)
		if want := []time.Time{start.Add(time.Second), start.Add(2 * time.Second), start.Add(2 * time.Second)}; !slices.Equal(again.times(), want) {
			t.Errorf("expired at %v, want %v", again.times(), want)
		}
		if other.times() != nil {
			t.Error("a stopped timer expired")
		}
		w.Start(&again.timer, 1<<63-1)
		w.Start(&other.timer, -1)
		synctest.Wait()
		if len(other.times()) != 1 {
			t.Error("a negative time did not expire at once")
		}
	})
}

// TestTimersArmed checks that the Go timer is started for the earliest time, and
// stopped if no timer runs.
func TestTimersArmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimers(t, nil)
		check := func(want time.Duration) {
			t.Helper()
			got := armedFor(w)
			if want < 0 {
				want = never
			}
			if got != want {
				t.Errorf("armed for %v, want %v", got, want)
			}
		}
		n := make([]recorder, 3)
		for i := range n {
			n[i].timer.Owner = &n[i]
		}
		check(-1)
		w.Start(&n[0].timer, 2*time.Second)
		check(2 * time.Second)
		w.Start(&n[1].timer, 3*time.Second)
		check(2 * time.Second)
		w.Start(&n[2].timer, time.Second)
		check(time.Second)
		w.Stop(&n[2].timer)
		check(2 * time.Second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		check(3 * time.Second)
		w.Stop(&n[1].timer)
		check(-1)
		if w.timer.Stop() {
			t.Error("the Go timer runs while no timer does")
		}
	})
}

// TestWake checks the arguments of wake, and that Resumed advances the clock.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var wakes []time.Duration // since start; -1 for none
		w := newTimers(t, func(at time.Time) {
			d := time.Duration(-1)
			if !at.IsZero() {
				d = at.Sub(start)
			}
			mu.Lock()
			defer mu.Unlock()
			wakes = append(wakes, d)
		})
		check := func(want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(wakes, want) {
				t.Errorf("wake got %v, want %v", wakes, want)
			}
			wakes = nil
		}
		n := make([]recorder, 3)
		for i := range n {
			n[i].timer = Timer{Owner: &n[i], Wakes: i > 0}
		}
		w.Start(&n[0].timer, time.Second)
		check()
		w.Start(&n[1].timer, 10*time.Second)
		check(10 * time.Second)
		w.Start(&n[2].timer, 20*time.Second)
		check()
		w.Stop(&n[1].timer)
		check(20 * time.Second)
		time.Sleep(5 * time.Second)
		check()
		w.Resumed(5 * time.Second) // the clock is at 10 s, 5 s after the start
		check()
		time.Sleep(10 * time.Second)
		check(-1)
		if want := []time.Time{start.Add(15 * time.Second)}; !slices.Equal(n[2].times(), want) {
			t.Errorf("expired at %v, want %v", n[2].times(), want)
		}
		w.Start(&n[1].timer, time.Minute)
		check(75 * time.Second)
		w.Resumed(time.Hour)
		check(-1)
		if len(n[1].times()) != 1 {
			t.Error("a timer that became due while asleep did not expire")
		}
		w.Resumed(1<<63 - 1)
		w.Resumed(1<<63 - 1)
		w.Resumed(-1)
		w.Start(&n[1].timer, time.Minute)
		check(75 * time.Second)
		w.Close()
		check(-1)
		w.Start(&n[1].timer, time.Minute)
		check()
	})
}

// TestTimersShrink checks that the memory of many timers is returned.
func TestTimersShrink(t *testing.T) {
	w := newTimers(t, nil)
	all := make([]recorder, 10_000)
	for i := range all {
		w.Start(&all[i].timer, time.Hour)
	}
	for i := range all {
		w.Stop(&all[i].timer)
	}
	if n := cap(w.lists[0]); n > 64 {
		t.Errorf("an empty list has room for %d timers", n)
	}
}

// BenchmarkTimers stops and starts one of many timers, as streams do, and compares
// that with timers of the Go runtime.
func BenchmarkTimers(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newTimers(b, nil)
			own := make([]recorder, n)
			for i := range own {
				own[i].timer.Owner = &own[i]
			}
			// Half of the timers have the same time, like those of one streamtype.
			limit := func(i int) time.Duration { return time.Hour + time.Duration(i%2*i)*time.Millisecond }
			ours := func(i int) {
				w.Stop(&own[i].timer)
				w.Start(&own[i].timer, limit(i))
			}
			peers := make([]*time.Timer, n)
			peer := func(i int) {
				if peers[i] != nil {
					peers[i].Stop()
				}
				peers[i] = time.AfterFunc(limit(i), func() { own[i].Expire(nil) })
			}
			queue := func(f func(int)) float64 {
				var before, after goruntime.MemStats
				goruntime.GC()
				goruntime.ReadMemStats(&before)
				for i := range n {
					f(i)
				}
				goruntime.GC()
				goruntime.ReadMemStats(&after)
				return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
			}
			bytes, peerBytes := queue(ours), queue(peer)
			var took, peerTook time.Duration
			const round = 1000
			for i := 0; b.Loop(); i += round {
				start := time.Now()
				for j := range round {
					ours((i + j) % n)
				}
				mid := time.Now()
				for j := range round {
					peer((i + j) % n)
				}
				took += mid.Sub(start)
				peerTook += time.Since(mid)
			}
			for _, p := range peers {
				p.Stop()
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N*round), "ns/timer")
			b.ReportMetric(float64(peerTook.Nanoseconds())/float64(b.N*round), "ns/AfterFunc")
			b.ReportMetric(float64(peerTook)/float64(took), "ratio")
			if n >= 100_000 {
				b.ReportMetric(bytes+float64(32), "B/timer") // including the Timer
				b.ReportMetric(peerBytes, "B/AfterFunc")
			}
		})
	}
}
