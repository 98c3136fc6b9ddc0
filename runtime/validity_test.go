package runtime

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestValidity checks when a connection is probed and given up.
func TestValidity(t *testing.T) {
	const s = time.Second
	retry := func(ping, hangup time.Duration) *Retry {
		return &Retry{ValidPing: ping, ValidHangup: hangup}
	}
	for _, tt := range []struct {
		name    string
		retry   *Retry
		confirm []time.Duration // times
		stop    time.Duration
		want    string
	}{
		{"no retry in the policy", nil, nil, 0, "40:probe 50:end"},
		{"neither", retry(0, 0), nil, 0, ""},
		{"both", retry(10*s, 15*s), nil, 0, "10:probe 15:end"},
		{"a probe alone, once until there is proof", retry(10*s, 0), nil, 0, "10:probe"},
		{"hang up alone", retry(0, 15*s), nil, 0, "15:end"},
		{"a probe that would come too late", retry(15*s, 10*s), nil, 0, "10:end"},
		{"a probe that would come with the end", retry(10*s, 10*s), nil, 0, "10:end"},
		{"proof puts the probe off", retry(10*s, 15*s), []time.Duration{3 * s, 6 * s}, 0, "16:probe 21:end"},
		{"proof after the probe", retry(10*s, 15*s), []time.Duration{12 * s}, 0, "10:probe 22:probe 27:end"},
		{"proof at the last moment", retry(10*s, 15*s), []time.Duration{15*s - 1}, 0, "10:probe 24.999999999:probe 29.999999999:end"},
		{"proof without a probe", retry(0, 15*s), []time.Duration{3 * s, 14 * s}, 0, "29:end"},
		{"proof without an end", retry(10*s, 0), []time.Duration{12 * s, 24 * s}, 0, "10:probe 22:probe 34:probe"},
		{"proof after the end", retry(10*s, 15*s), []time.Duration{16 * s}, 0, "10:probe 15:end"},
		{"stopped", retry(10*s, 15*s), nil, 5 * s, ""},
		{"stopped after the probe", retry(10*s, 15*s), nil, 12 * s, "10:probe"},
		{"proof after stop", retry(10*s, 15*s), []time.Duration{13 * s}, 12 * s, "10:probe"},
		{"a negative time", retry(-1, -1), nil, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := NewContext(&Policy{}, Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				var mu sync.Mutex
				var got []string
				start := time.Now()
				note := func(what string) func() {
					return func() {
						mu.Lock()
						defer mu.Unlock()
						got = append(got, fmt.Sprintf("%v:%s", time.Since(start).Seconds(), what))
					}
				}
				v := c.StartValidity(&StreamType{Retry: tt.retry}, note("probe"), note("end"))
				for _, at := range tt.confirm {
					time.AfterFunc(at, v.Confirm)
				}
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, v.Stop)
				}
				time.Sleep(time.Hour)
				if armedFor(&c.timers) != noTimer {
					t.Error("the watch is over, and a timer runs")
				}
				v.Stop()
				v.Confirm()
				mu.Lock()
				defer mu.Unlock()
				if got := strings.Join(got, " "); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			})
		})
	}
	t.Run("callbacks that are missing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, err := NewContext(&Policy{}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var n atomic.Int32
			both := &StreamType{Retry: retry(10*s, 15*s)}
			c.StartValidity(both, nil, nil).Stop()
			c.StartValidity(both, func() { n.Add(1) }, nil)
			c.StartValidity(both, nil, func() { n.Add(1) })
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := n.Load(); n != 2 {
				t.Errorf("%d calls, want 2", n)
			}
		})
	})
}

// TestSwakeValidity checks which timers of a stream are worth waking for.
func TestSwakeValidity(t *testing.T) {
	for _, swake := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var mu sync.Mutex
			var told []time.Duration
			st := &StreamType{
				Name: "s", Protocol: ProtocolRaw, Endpoint: "h", Port: 1, SwakeValidity: swake,
				Retry: &Retry{Backoff: []time.Duration{time.Minute}, Conceal: 1, ValidPing: time.Second, ValidHangup: 2 * time.Second},
			}
			c, err := NewContext(&Policy{StreamTypes: []*StreamType{st}}, Options{
				Transports: []Transport{unreachable{}},
				Jitter:     func() uint16 { return 0 },
				Wake: func(at time.Time) {
					mu.Lock()
					defer mu.Unlock()
					if at.IsZero() {
						told = append(told, -1)
					} else {
						told = append(told, at.Sub(start))
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.NewStream("s", Handlers{})
			if err != nil {
				t.Fatal(err)
			}
			s.StartTimeout(5 * time.Second) // never worth it
			s.Connect()                     // waits for a minute
			synctest.Wait()
			time.Sleep(10 * time.Second)
			v := c.StartValidity(st, func() {}, func() {})
			time.Sleep(500 * time.Millisecond)
			v.Stop()
			synctest.Wait()
			c.Close()
			want := "[]"
			if swake {
				want = "[1m0s 11s 1m0s -1ns]"
			}
			mu.Lock()
			defer mu.Unlock()
			if got := fmt.Sprint(told); got != want {
				t.Errorf("swake_validity %v: told %s, want %s", swake, got, want)
			}
		})
	}
}

// TestCloseInWake checks that Options.Wake may close the context.
func TestCloseInWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *Context
		c, err := NewContext(&Policy{}, Options{Wake: func(time.Time) { c.Close() }})
		if err != nil {
			t.Fatal(err)
		}
		c.StartValidity(&StreamType{SwakeValidity: true}, func() {}, func() {})
		synctest.Wait()
		c.Close()
	})
}
