package storm

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// stream returns a streamtype with a scheme of one wait.
func stream(wait time.Duration, conceal uint16, jitter uint8) *policy.StreamType {
	return &policy.StreamType{Name: "s", Protocol: policy.ProtocolWS, Retry: &policy.Retry{
		Backoff: []time.Duration{wait}, Conceal: conceal, JitterPercent: jitter, ValidPing: 30 * time.Second, ValidHangup: 35 * time.Second,
	}}
}

// window returns the sum of values[from:to].
func window(values []int, from, to int) (n int) {
	for _, v := range values[from:min(to, len(values))] {
		n += v
	}
	return n
}

func TestKinds(t *testing.T) {
	const n = 1000
	s := Scenario{Devices: n, Outage: 10 * time.Minute}

	// The devices notice after 5 to 35 s, each attempt takes the timeout, and the next
	// comes 10 s later.
	silent := s
	silent.Kind = Silent
	r := run(t, Client{Stream: stream(10*time.Second, 65535, 1), Timeout: 5 * time.Second}, silent)
	if early := window(r.Attempts, 0, 15); early != 0 {
		t.Errorf("silent: %d attempts before any device can have noticed", early)
	}
	if first := window(r.Attempts, 15, 46); first < n {
		t.Errorf("silent: %d first attempts", first)
	}
	if want := float64(n) / 15.05; math.Abs(r.Level/want-1) > 0.05 {
		t.Errorf("silent: %.0f attempts per second, want %.0f", r.Level, want)
	}
	blind := stream(10*time.Second, 65535, 1)
	blind.Protocol = policy.ProtocolRaw
	if r := run(t, Client{Stream: blind}, silent); r.Unnoticed != n || r.Total != 0 || r.Away != 0 {
		t.Errorf("silent, without checks: %d did not notice, %d attempts", r.Unnoticed, r.Total)
	}

	// In lws each connection ends the series of failures, in the runtime it does not.
	closed := s
	closed.Kind = Closed
	grow := stream(0, 65535, 1)
	grow.Retry.Backoff = []time.Duration{time.Second, time.Minute}
	lws, own := run(t, Client{Stream: grow, LWS: true}, closed), run(t, Client{Stream: grow}, closed)
	if lws.PerDevice.P50 < 500 || own.PerDevice.Max > 11 {
		t.Errorf("closed: a device makes %d attempts with lws, and %d with the runtime", lws.PerDevice.P50, own.PerDevice.Max)
	}

	// The server requests more patience than the policy allows.
	busy := s
	busy.Kind, busy.RetryAfter, busy.Devices = Unavailable, time.Minute, 2*n
	web := stream(time.Second, 65535, 1)
	web.Protocol = policy.ProtocolH1
	if r := run(t, Client{Stream: web}, busy); r.PerDevice.Max != 11 || r.Burst().Ratio < Synchronised {
		t.Errorf("unavailable: %d attempts, burst %.1f", r.PerDevice.Max, r.Burst().Ratio)
	}

	// The loss of the connection takes one of the retries.
	r = run(t, Client{Stream: stream(time.Second, 3, 1)}, s)
	if r.GaveUp != n || r.Away != n || r.PerDevice.Max != 3 || r.Back.P50 != Never {
		t.Errorf("conceal 3: %+v", r.PerDevice)
	}
	requests := s
	requests.Every = time.Hour
	requests.For = 2 * time.Hour
	if r := run(t, Client{Stream: stream(time.Second, 3, 1)}, requests); r.GaveUp != 0 || r.Away != 0 || r.Back.Max > time.Hour || r.Back.P50 < 20*time.Minute {
		t.Errorf("a request every hour: %+v", r.Back)
	}
	requests.ClockSpread = 10 * time.Second
	if r := run(t, Client{Stream: stream(time.Second, 3, 1)}, requests); r.Back.P50 < 49*time.Minute || r.Back.Max > 51*time.Minute {
		t.Errorf("requests within 10 s: %+v", r.Back)
	}

	// Devices boot during the outage.
	power := s
	power.Boot = 20 * time.Minute
	if r := run(t, Client{Stream: stream(10*time.Second, 65535, 20)}, power); math.Abs(float64(window(r.Attempts, 0, 60))-150) > 40 || r.Away != 0 {
		t.Errorf("boots: %d attempts in the first minute", window(r.Attempts, 0, 60))
	}

	// Connections end and are made without an outage.
	churn := Scenario{Devices: 10_000, Boot: time.Minute, Churn: 10 * time.Minute, For: time.Hour, Capacity: 1000}
	r = run(t, Client{Stream: stream(time.Second, 65535, 20), LWS: true}, churn)
	if got, want := mean(r.Attempts, 1800, 3600), 10_000/600.0; math.Abs(got/want-1) > 0.05 {
		t.Errorf("churn: %.1f attempts per second, want %.1f", got, want)
	}

	// Clock errors spread devices with little jitter.
	exact := Scenario{Devices: 20_000, Outage: time.Hour}
	wrong := exact
	wrong.ClockError = 2
	c := Client{Stream: stream(30*time.Second, 65535, 1)}
	if a, b := run(t, c, exact).Burst().Ratio, run(t, c, wrong).Burst().Ratio; a < Synchronised || b > a/2 {
		t.Errorf("the burst is %.1f with exact clocks, %.1f with wrong ones", a, b)
	}
}

// TestFrom checks an outage that begins while the server works, and interrupts
// handshakes.
func TestFrom(t *testing.T) {
	s := Scenario{Devices: 1000, Boot: time.Millisecond, From: 5 * time.Second, Outage: 30 * time.Second, Capacity: 100}
	r := run(t, Client{Stream: stream(2*time.Second, 65535, 50)}, s)
	if got := r.Connected[4]; got < 480 || got > 500 {
		t.Errorf("%d are connected when the outage begins, want about 490", got)
	}
	if r.Connected[10] != 0 || r.Away != 0 || r.Back.Max < 9*time.Second {
		t.Errorf("during the outage %d, at the end %d away, all back after %v", r.Connected[10], r.Away, r.Back.Max)
	}
}

// TestCollapsed checks that a simulation that ends early, because the fleet does not come
// back, would have the same result at its regular end.
func TestCollapsed(t *testing.T) {
	long := stream(0, 65535, 20)
	long.Retry.Backoff = nil
	for wait := time.Second; wait <= 2*time.Minute; wait += 2 * time.Second {
		long.Retry.Backoff = append(long.Retry.Backoff, wait)
	}
	finite := stream(2*time.Second, 30, 20)
	for _, x := range []struct {
		name string
		st   *policy.StreamType
		s    Scenario
		want bool
	}{
		{"waits grow slowly", long, Scenario{Devices: 5000, Outage: 10 * time.Second, Capacity: 50, For: 2 * time.Hour}, false},
		{"devices give up", finite, Scenario{Devices: 5000, Outage: 10 * time.Second, Capacity: 50, For: 2 * time.Hour}, false},
		{"boots", stream(2*time.Second, 65535, 20), Scenario{Devices: 5000, Boot: 5 * time.Minute, Capacity: 20, For: time.Hour}, false},
		{"collapse", stream(2*time.Second, 65535, 20), Scenario{Devices: 5000, Boot: time.Minute, Capacity: 50, For: 2 * time.Hour}, true},
	} {
		r := run(t, Client{Stream: x.st}, x.s)
		f, err := newFleet(&Client{Stream: x.st}, &x.s)
		if err != nil {
			t.Fatal(err)
		}
		f.toOutageEnd()
		f.serveUntil(f.outageEnd, f.end, func(uint32) bool { return false })
		full := f.result()
		t.Logf("%s: collapsed %v, away %d; to the end %d, back %v", x.name, r.Collapsed, r.Away, full.Away, full.Back)
		if r.Collapsed && (full.Away == 0 || full.Back.P99 != Never) {
			t.Errorf("%s: it is said to collapse, and comes back: %v", x.name, full.Back)
		}
		if x.want != r.Collapsed {
			t.Errorf("%s: collapsed %v", x.name, r.Collapsed)
		}
	}
}

func TestFindCapacity(t *testing.T) {
	s := Scenario{Devices: 20_000, Outage: 10 * time.Minute}
	c := Client{Stream: whole(), LWS: true}
	found, err := FindCapacity(c, s)
	if err != nil {
		t.Fatal(err)
	}
	s.Capacity = found.Capacity
	if r := run(t, c, s); r.Back != found.Result.Back || r.Back.P99 == Never {
		t.Errorf("with %.0f/s: %v, and the search says %v", s.Capacity, r.Back, found.Result.Back)
	}
	if s.Capacity = found.Capacity * 0.9; run(t, c, s).Back.P99 != Never {
		t.Errorf("%.0f/s is enough, and the search says %.0f/s", s.Capacity, found.Capacity)
	}
	last := found.Outage[len(found.Outage)-1]
	if found.Outage[0].Connected > 0.5 || last.Connected != 1 || found.Calm[0].Connected != 1 {
		t.Errorf("hysteresis: %v, %v", found.Outage, found.Calm)
	}
	if _, err := FindCapacity(Client{Stream: stream(time.Second, 2, 20)}, Scenario{Devices: 10, Outage: time.Minute}); err == nil || !strings.Contains(err.Error(), "no capacity is enough") {
		t.Errorf("a fleet that gives up: %v", err)
	}
}

func TestLockstep(t *testing.T) {
	for _, x := range []struct {
		wait   time.Duration
		jitter uint8
		want   bool
	}{
		{30 * time.Second, 1, true}, {30 * time.Second, 20, false}, {30 * time.Second, 0, false}, {time.Second, 1, false},
		{5 * time.Minute, 2, true}, {10 * time.Second, 20, false}, {2 * time.Hour, 1, false}, {10 * time.Second, 1, true},
	} {
		o, ok := Lockstep(stream(x.wait, 65535, x.jitter).Retry)
		if got := ok && o.Burst().Ratio > 0; got != x.want {
			t.Errorf("%v, %d %%: %v", x.wait, x.jitter, got)
		}
	}
	if _, ok := Lockstep(nil); ok {
		t.Error("there is no scheme")
	}
}

// FuzzRun checks laws of all simulations.
func FuzzRun(f *testing.F) {
	f.Add(uint64(1), uint16(100), uint8(0), int64(0), int64(60), int64(0), int64(0), 0.0, int64(1000), uint16(5), uint8(20), false)
	f.Add(uint64(2), uint16(300), uint8(1), int64(30), int64(90), int64(20), int64(40), 7.5, int64(5000), uint16(65535), uint8(0), true)
	f.Add(uint64(3), uint16(50), uint8(2), int64(5), int64(9), int64(300), int64(7), 0.5, int64(1), uint16(9), uint8(255), true)
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, kind uint8, from, outage, boot, churn int64, capacity float64, wait int64, conceal uint16, jitter uint8, lws bool) {
		const limit = 1000
		for _, v := range []int64{from, outage, boot, churn} {
			if v < 0 || v > limit {
				t.Skip()
			}
		}
		s := Scenario{
			Devices: int(n % 500), Seed: seed, Kind: Kind(kind % 3), From: time.Duration(from) * time.Second, Outage: time.Duration(outage) * time.Second,
			Boot: time.Duration(boot) * time.Second, Churn: time.Duration(churn) * time.Second, Capacity: capacity, For: 3 * limit * time.Second,
		}
		if wait < 100 || capacity > 1e6 {
			t.Skip()
		}
		st := stream(time.Duration(wait)*time.Millisecond, conceal, jitter)
		r, err := Run(Client{Stream: st, LWS: lws}, s)
		if err != nil {
			t.Skip()
		}
		sum, connected := 0, 0
		for i, a := range r.Attempts {
			sum += a
			connected = r.Connected[i]
			if a < 0 || a > r.Peak || connected < 0 || connected > s.Devices {
				t.Fatalf("second %d: %d attempts, %d connected", i, a, connected)
			}
		}
		if int64(sum) != r.Total || r.PerDevice.Max*s.Devices < sum || r.GaveUp > r.Away || r.Back.P50 > r.Back.P99 || r.Back.P99 > r.Back.Max {
			t.Fatalf("%+v", r)
		}
		report := &Report{Runs: []*Result{r}}
		if text := report.Text(80); strings.Contains(text, "NaN") || strings.Contains(text, "2562047h") {
			t.Error(text)
		}
	})
}
