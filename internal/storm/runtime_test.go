package storm

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

var errDown = errors.New("the server is down")

// A failing is a transport whose server is down for a time. It records the
// attempts.
type failing struct {
	start        time.Time
	from, outage time.Duration

	mu       sync.Mutex
	attempts []time.Duration
	back     []time.Duration
}

func (f *failing) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolWS} }
func (f *failing) Prepare(*transport.Setup) (transport.Connector, error) {
	return f, nil
}
func (f *failing) Close() error { return nil }

func (f *failing) Run(ctx context.Context, l transport.Link) error {
	now := time.Since(f.start)
	f.mu.Lock()
	f.attempts = append(f.attempts, now)
	f.mu.Unlock()
	time.Sleep(DefaultRTT)
	if now >= f.from && now < f.from+f.outage {
		return errDown
	}
	if err := l.Connected(); err != nil {
		return err
	}
	f.mu.Lock()
	if now >= f.from+f.outage {
		f.back = append(f.back, time.Since(f.start)-f.from-f.outage)
	}
	f.mu.Unlock()
	var lost <-chan time.Time
	if now < f.from {
		lost = time.After(f.from - time.Since(f.start))
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-lost:
		return errDown
	}
}

// TestRuntime compares a simulation with 200 streams of the runtime that live through
// the same outage, in virtual time.
func TestRuntime(t *testing.T) {
	const (
		n      = 200
		from   = 30 * time.Second
		outage = 5 * time.Minute
	)
	st := whole()
	st.NailedUp = true
	f := &failing{from: from, outage: outage}
	synctest.Test(t, func(t *testing.T) {
		f.start = time.Now()
		c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{st}}, runtime.Options{Transports: []transport.Transport{f}})
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := c.NewStream("s", runtime.Handlers{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(from + outage + time.Minute)
		c.Close()
	})
	// The simulation of many more devices is what the streams would do on average.
	const many = 100 * n
	r := run(t, Client{Stream: st}, Scenario{Devices: many, Boot: time.Millisecond, From: from, Outage: outage})

	// The curves lie on each other: at no second do the attempts until then differ by
	// more than 1 % of all.
	got := make([]int, len(r.Attempts))
	for _, at := range f.attempts {
		if i := int(at / time.Second); i < len(got) {
			got[i]++
		}
	}
	far, sum, want := 0.0, 0, 0.0
	for i := range got {
		sum += got[i]
		want += float64(r.Attempts[i]) / 100
		far = math.Max(far, math.Abs(float64(sum)-want)/float64(len(f.attempts)))
	}
	t.Logf("%d attempts of the runtime, %.0f simulated; the sums differ by %.2f %% at most", len(f.attempts), float64(r.Total)/100, far*100)
	if far > 0.01 {
		t.Errorf("the attempts differ by %.2f %%", far*100)
	}

	slices.Sort(f.back)
	for _, q := range []struct {
		share     float64
		simulated time.Duration
	}{{0.5, r.Back.P50}, {0.9, r.Back.P90}, {1, r.Back.Max}} {
		real := f.back[rank(n, q.share)-1]
		t.Logf("%.0f %% are back after %v, simulated %v", q.share*100, real, q.simulated)
		if (real - q.simulated).Abs() > 2*time.Second {
			t.Errorf("%.0f %% are back after %v, simulated %v", q.share*100, real, q.simulated)
		}
	}
}
