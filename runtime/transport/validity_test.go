package transport

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestValidity checks the times of probes and of the end.
func TestValidity(t *testing.T) {
	const s = time.Second
	retry := func(ping, hangup time.Duration) *policy.Retry {
		return &policy.Retry{ValidPing: ping, ValidHangup: hangup}
	}
	for _, tt := range []struct {
		name    string
		retry   *policy.Retry
		confirm []time.Duration // times of Confirm
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
		{"proof delays the probe", retry(10*s, 15*s), []time.Duration{3 * s, 6 * s}, 0, "16:probe 21:end"},
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
				var mu sync.Mutex
				var got []string
				var next time.Time // of a timer; zero if none runs
				env := newEnv(t, Config{Wake: func(at time.Time) {
					mu.Lock()
					defer mu.Unlock()
					next = at
				}})
				start := time.Now()
				record := func(event string) func() {
					return func() {
						mu.Lock()
						defer mu.Unlock()
						got = append(got, fmt.Sprintf("%v:%s", time.Since(start).Seconds(), event))
					}
				}
				setup := newSetup(t, env, &policy.StreamType{Retry: tt.retry, SwakeValidity: true})
				v := setup.Watch(record("probe"), record("end"))
				for _, at := range tt.confirm {
					time.AfterFunc(at, v.Confirm)
				}
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, v.Stop)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				mu.Lock()
				if !next.IsZero() {
					t.Error("a timer runs after the end of the watch")
				}
				mu.Unlock()
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
			var n atomic.Int32
			setup := newSetup(t, newEnv(t, Config{}), &policy.StreamType{Retry: retry(10*s, 15*s)})
			setup.Watch(nil, nil).Stop()
			setup.Watch(func() { n.Add(1) }, nil)
			setup.Watch(nil, func() { n.Add(1) })
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := n.Load(); n != 2 {
				t.Errorf("%d calls, want 2", n)
			}
		})
	})
}
