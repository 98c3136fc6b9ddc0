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

// A failingLink is a transport whose server is down for a time, in the way of a kind. It
// records the attempts.
type failingLink struct {
	kind         Kind
	start        time.Time
	from, outage time.Duration

	mu       sync.Mutex
	attempts []time.Duration
	back     []time.Duration
}

func (f *failingLink) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolH1} }
func (f *failingLink) Prepare(*transport.Setup) (transport.Connector, error) {
	return f, nil
}
func (f *failingLink) Close() error { return nil }

func (f *failingLink) Run(ctx context.Context, l transport.Link) error {
	now := time.Since(f.start)
	down := now >= f.from && now < f.from+f.outage
	f.mu.Lock()
	f.attempts = append(f.attempts, now)
	f.mu.Unlock()
	if down && f.kind == Silent {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(DefaultRTT)
	switch {
	case !down:
	case f.kind == Closed:
		return errors.Join(l.Connected(), errDown)
	case f.kind == Unavailable:
		l.Answer(transport.Answer{RetryAfter: 20 * time.Second})
		return errDown
	default:
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

// TestRuntime compares simulations with 200 streams of the runtime under the same outage,
// in virtual time.
func TestRuntime(t *testing.T) {
	const (
		n      = 200
		times  = 100 // devices in the simulation per stream
		from   = 30 * time.Second
		outage = 5 * time.Minute
	)
	finite := whole()
	finite.Retry.Conceal = 20
	for _, x := range []struct {
		name string
		st   *policy.StreamType
		kind Kind
	}{
		{"refused", whole(), Refused},
		{"silent", whole(), Silent},
		{"closed", whole(), Closed},
		{"unavailable", whole(), Unavailable},
		{"conceals 20", finite, Refused},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.st.Protocol, x.st.NailedUp = policy.ProtocolH1, true
			f := &failingLink{kind: x.kind, from: from, outage: outage}
			synctest.Test(t, func(t *testing.T) {
				f.start = time.Now()
				c, err := runtime.NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{x.st}}, runtime.Options{Transports: []transport.Transport{f}})
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
			// Many devices average the behaviour of the streams.
			s := Scenario{Devices: times * n, Boot: time.Millisecond, From: from, Outage: outage, For: from + outage + time.Minute, Kind: x.kind}
			if x.kind == Unavailable {
				s.RetryAfter = 20 * time.Second
			}
			if x.kind == Silent {
				s.Notice = time.Millisecond
			}
			r := run(t, Client{Stream: x.st}, s)
			compare(t, f, r, times)
			if r.GaveUp/times != n-len(f.back) {
				t.Errorf("%d streams are back, and %d of %d devices gave up", len(f.back), r.GaveUp, s.Devices)
			}
		})
	}
}

// compare checks that the curves agree: the cumulative numbers of attempts differ by at
// most 2 % of the total at every second. In 125 runs they differed by at most 0.7 %.
func compare(t *testing.T, f *failingLink, r *Result, times int) {
	t.Helper()
	const limit = 0.02
	got := make([]int, len(r.Attempts))
	all := 0
	for _, at := range f.attempts {
		if i := int(at / time.Second); i < len(got) {
			got[i]++
			all++
		}
	}
	far, sum, want := 0.0, 0, 0.0
	for i := range got {
		sum += got[i]
		want += float64(r.Attempts[i]) / float64(times)
		far = math.Max(far, math.Abs(float64(sum)-want)/float64(all))
	}
	t.Logf("%d attempts of the runtime, %.0f simulated; the sums differ by %.2f %% at most", all, want, far*100)
	if far > limit {
		t.Errorf("the attempts differ by %.2f %%", far*100)
	}
	slices.Sort(f.back)
	for _, q := range []struct {
		share     float64
		simulated time.Duration
	}{{0.5, r.Back.P50}, {0.9, r.Back.P90}, {1, r.Back.Max}} {
		if len(f.back) == 0 {
			continue
		}
		real := f.back[rank(len(f.back), q.share)-1]
		t.Logf("%.0f %% are back after %v, simulated %v", q.share*100, real, q.simulated)
		if (real - q.simulated).Abs() > 3*time.Second {
			t.Errorf("%.0f %% are back after %v, simulated %v", q.share*100, real, q.simulated)
		}
	}
}
