package storm

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// whole is the backoff scheme in the documentation of lws, for a device that never gives
// up.
func whole() *policy.StreamType {
	return &policy.StreamType{Name: "s", Protocol: policy.ProtocolWS, Endpoint: "example.com", HTTP: &policy.HTTP{}, Retry: &policy.Retry{
		Backoff: []time.Duration{1 * time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second},
		Conceal: 65535, JitterPercent: 20,
	}}
}

func run(t testing.TB, c Client, s Scenario) *Result {
	t.Helper()
	r, err := Run(c, s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPlateau compares the attempts per second of a long outage with the closed form N /
// (time to fail + last wait · (1 + jitter/200)).
func TestPlateau(t *testing.T) {
	for _, x := range []struct {
		name   string
		client Client
		want   float64
	}{
		{"whole", Client{Stream: whole()}, 20000 / (0.05 + 10*1.1)},
		{"lws 4.3", Client{Stream: whole(), LWS: true}, 20000 / (0.05 + 10*1.1)},
		{"lws 5.0", Client{Stream: whole(), LWS: true, FirstWait: true}, 20000 / (0.05 + 1*1.1)},
	} {
		r := run(t, x.client, Scenario{Devices: 20000, Outage: 10 * time.Minute})
		if math.Abs(r.Level/x.want-1) > 0.02 {
			t.Errorf("%s: %.0f attempts per second, want %.0f", x.name, r.Level, x.want)
		}
		t.Logf("%s: %.0f attempts per second, closed form %.0f, peak %d", x.name, r.Level, x.want, r.Peak)
	}
}

// TestCollapse checks known results: a fleet does not come back to a server of sufficient
// capacity if its work is wasted.
func TestCollapse(t *testing.T) {
	for _, x := range []struct {
		name     string
		first    bool
		capacity float64
		maxWait  time.Duration
		want     time.Duration // 0 means never
	}{
		{"200, FIFO", false, 200, 0, 0},
		{"200, cut at 2 s", false, 200, 2 * time.Second, 100 * time.Second},
		{"400, FIFO", false, 400, 0, 88 * time.Second},
		{"400, FIFO, first wait", true, 400, 0, 0},
	} {
		c := Client{Stream: whole(), Timeout: 20 * time.Second, LWS: true, FirstWait: x.first}
		r := run(t, c, Scenario{Devices: 20000, Outage: 10 * time.Minute, Capacity: x.capacity, MaxWait: x.maxWait})
		t.Logf("%s: back %v, collapsed %v, wasted %d", x.name, r.Back, r.Collapsed, r.Wasted)
		switch {
		case x.want == 0 && (r.Back.P99 != Never || !r.Collapsed):
			t.Errorf("%s: 99 %% are back after %v, want never", x.name, r.Back.P99)
		case x.want > 0 && math.Abs(float64(r.Back.P99)/float64(x.want)-1) > 0.05:
			t.Errorf("%s: 99 %% are back after %v, want %v", x.name, r.Back.P99, x.want)
		}
	}
}

// TestAWS reproduces the simulator of "Exponential Backoff And Jitter" (AWS
// Architecture Blog, 2015) on this package's event queue: 100 clients that write one
// row with optimistic concurrency control, mean of 100 runs.
func TestAWS(t *testing.T) {
	const base, limit, clients, runs, ticksPerMS = 5, 2000, 100, 100, 4
	expo := func(n int) float64 { return math.Min(limit, base*math.Pow(2, float64(n))) }
	for _, x := range []struct {
		name  string
		want  float64
		sleep func(r *rand.Rand, n int, last *float64) float64
	}{
		{"none", 2424, func(*rand.Rand, int, *float64) float64 { return 0 }},
		{"exponential", 1850, func(_ *rand.Rand, n int, _ *float64) float64 { return expo(n) }},
		{"decorrelated", 1005, func(r *rand.Rand, _ int, last *float64) float64 {
			*last = math.Min(limit, base+r.Float64()*(*last*3-base))
			return *last
		}},
		{"equal", 812, func(r *rand.Rand, n int, _ *float64) float64 { return expo(n)/2 + r.Float64()*expo(n)/2 }},
		{"full", 794, func(r *rand.Rand, n int, _ *float64) float64 { return r.Float64() * expo(n) }},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		delay := func() float64 { return math.Abs(random.NormFloat64()*2 + 10) }
		calls := 0
		for range runs {
			type client struct {
				version int // that was read
				reply   bool
				success bool
				write   bool
				last    float64
			}
			devices := make([]device, clients)
			state := make([]client, clients)
			w := newWheel(devices)
			version := 0
			for i := range devices {
				state[i].last = base
				devices[i].due = uint32(delay() * ticksPerMS)
				w.add(i)
			}
			for now := uint32(0); w.pending > 0; now++ {
				w.take(now, func(i int) {
					d, c := &devices[i], &state[i]
					wait := delay()
					switch {
					case !c.reply && !c.write: // the server reads
						c.version, c.reply = version, true
					case c.reply && !c.write: // the client has read
						c.reply, c.write = false, true
					case !c.reply: // the server writes
						calls++
						c.success, c.reply = c.version == version, true
						if c.success {
							version++
						}
					case c.success:
						return
					default: // the client failed
						d.tries++
						wait += x.sleep(random, int(d.tries), &c.last)
						c.reply, c.write = false, false
					}
					d.due = max(now+1, now+uint32(wait*ticksPerMS))
					w.add(i)
				})
			}
		}
		got := float64(calls) / runs
		t.Logf("%s: %.0f calls, published %.0f", x.name, got, x.want)
		if math.Abs(got/x.want-1) > 0.05 {
			t.Errorf("%s: %.0f calls, want %.0f", x.name, got, x.want)
		}
	}
}

// TestDeterminism checks that the result depends only on the scenario, not on the number of
// processors.
func TestDeterminism(t *testing.T) {
	s := Scenario{Devices: 5000, Seed: 7, Boot: time.Minute, From: 2 * time.Minute, Outage: 5 * time.Minute, Capacity: 300, Churn: time.Hour, ClockError: 1}
	a, b := run(t, Client{Stream: whole()}, s), run(t, Client{Stream: whole()}, s)
	if !reflect.DeepEqual(a, b) {
		t.Error("two runs differ")
	}
	f, err := newFleet(&Client{Stream: whole()}, &s)
	if err != nil {
		t.Fatal(err)
	}
	f.workers = 1
	f.toOutageEnd()
	f.serve(f.outageEnd, f.end)
	if c := f.result(); !reflect.DeepEqual(a.Attempts, c.Attempts) || a.Back != c.Back {
		t.Error("one worker has another result")
	}
	s.Seed = 8
	if reflect.DeepEqual(a.Attempts, run(t, Client{Stream: whole()}, s).Attempts) {
		t.Error("another seed has the same result")
	}
}

func BenchmarkHourOfOutage(b *testing.B) {
	for _, x := range []struct {
		name   string
		client Client
		s      Scenario
	}{
		{"whole", Client{Stream: whole()}, Scenario{Devices: 1e6, Outage: time.Hour}},
		{"first", Client{Stream: whole(), LWS: true, FirstWait: true}, Scenario{Devices: 1e6, Outage: time.Hour}},
		{"whole-1000", Client{Stream: whole()}, Scenario{Devices: 1e6, Outage: time.Hour, Capacity: 30000}},
		{"cut-1000", Client{Stream: whole()}, Scenario{Devices: 1e6, Outage: time.Hour, Capacity: 1000, MaxWait: 2 * time.Second}},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := run(b, x.client, x.s)
				b.ReportMetric(float64(r.Total)/1e6, "Mattempts")
			}
		})
	}
}

// TestRepeat checks that the fast path through a long outage has the same result as the
// general one.
func TestRepeat(t *testing.T) {
	c, s := Client{Stream: whole()}, Scenario{Devices: 2000, Outage: 20 * time.Minute}
	quick := run(t, c, s)
	f, err := newFleet(&c, &s)
	if err != nil {
		t.Fatal(err)
	}
	w := outage{fleet: f, answer: f.rtt, attempts: f.attempts}
	for i := range f.devices {
		w.run(i)
	}
	f.connects[0] = 0
	f.serve(f.outageEnd, f.end)
	if plain := f.result(); !reflect.DeepEqual(quick.Attempts, plain.Attempts) || quick.PerDevice != plain.PerDevice {
		t.Error("the results differ")
	}
}
