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

// noted is the owner of a timer, and notes when its time was up.
type noted struct {
	timer Timer
	do    func()

	mu sync.Mutex
	at []time.Time
}

func (n *noted) Expire(*Timer) {
	n.mu.Lock()
	n.at = append(n.at, time.Now())
	n.mu.Unlock()
	if n.do != nil {
		n.do()
	}
}

func (n *noted) times() []time.Time {
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

// armedFor returns the time that the one timer is started for.
func armedFor(w *Timers) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.armed)
}

// TestTimers starts and stops timers at random, and checks that each is told
// when its time is up, at that time, and not if it has been stopped.
func TestTimers(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			w := newTimers(t, nil)
			all := make([]noted, 300)
			want := make([][]time.Time, len(all))
			pending := make([]time.Time, len(all))
			settle := func() { // what has become due was told
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
						t.Fatalf("stop of a timer that is to expire at %v says %v", pending[i], got)
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
					t.Errorf("seed %d: timer %d: told at %v, want %v", seed, i, all[i].times(), want[i])
				}
			}
			if armedFor(w) != never || len(w.lists[0])+len(w.lists[1]) != 0 {
				t.Error("something is left when all timers have expired")
			}
		})
	}
}

// TestTimersFromInside checks timers that are started and stopped while others
// are told.
func TestTimersFromInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimers(t, nil)
		var again, other noted
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
			t.Errorf("told at %v, want %v", again.times(), want)
		}
		if other.times() != nil {
			t.Error("a timer was stopped, and told all the same")
		}
		w.Start(&again.timer, 1<<63-1)
		w.Start(&other.timer, -1)
		synctest.Wait()
		if len(other.times()) != 1 {
			t.Error("a time that is over was not told at once")
		}
	})
}

// TestTimersArmed checks that there is a timer for the earliest time, and none
// when nothing is due.
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
		n := make([]noted, 3)
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
			t.Error("the timer runs, and nothing is due")
		}
	})
}

// TestWake checks what Options.Wake is told, and that the time that the system
// has slept counts.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var told []time.Duration // since start; -1: none
		w := newTimers(t, func(at time.Time) {
			d := time.Duration(-1)
			if !at.IsZero() {
				d = at.Sub(start)
			}
			mu.Lock()
			defer mu.Unlock()
			told = append(told, d)
		})
		check := func(want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, want) {
				t.Errorf("told %v, want %v", told, want)
			}
			told = nil
		}
		n := make([]noted, 3)
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
			t.Errorf("told at %v, want %v", n[2].times(), want)
		}
		w.Start(&n[1].timer, time.Minute)
		check(75 * time.Second)
		w.Resumed(time.Hour)
		check(-1)
		if len(n[1].times()) != 1 {
			t.Error("what became due in the sleep was not told")
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

// TestSlowCallback checks that a callback that takes its time does not keep the
// timers of others.
func TestSlowCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewContext(&Policy{StreamTypes: []*StreamType{{Name: "s", Protocol: ProtocolRaw, Endpoint: "h", Port: 1}}},
			Options{Transports: []Transport{never{}}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		for i := range 100 {
			s, err := c.NewStream("s", Handlers{State: func(_ *Stream, state State, _ uint32) Result {
				if state == StateTimeout {
					mu.Lock()
					at = append(at, time.Since(start))
					mu.Unlock()
					time.Sleep(time.Hour)
				}
				return OK
			}})
			if err != nil {
				t.Fatal(err)
			}
			s.StartTimeout(time.Duration(1 + i))
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(at) != 100 || at[99] != 100 {
			t.Errorf("timeouts at %v", at)
		}
	})
}

// TestTimersShrink checks that what many timers took is given back.
func TestTimersShrink(t *testing.T) {
	w := newTimers(t, nil)
	all := make([]noted, 10_000)
	for i := range all {
		w.Start(&all[i].timer, time.Hour)
	}
	for i := range all {
		w.Stop(&all[i].timer)
	}
	if n := cap(w.lists[0]); n > 64 {
		t.Errorf("an empty list has place for %d timers", n)
	}
}

// BenchmarkTimers starts and stops one of many timers, as streams do, and does
// the same with those of the Go runtime.
func BenchmarkTimers(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newTimers(b, nil)
			own := make([]noted, n)
			for i := range own {
				own[i].timer.Owner = &own[i]
			}
			// Half of the timers have one time, as those of one streamtype.
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
				b.ReportMetric(bytes+float64(32), "B/timer") // with the timer itself
				b.ReportMetric(peerBytes, "B/AfterFunc")
			}
		})
	}
}
