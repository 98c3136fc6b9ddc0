package storm

import (
	"math"
	"slices"
	"time"
)

// A Result is the result of a simulation.
type Result struct {
	Client   Client
	Scenario Scenario

	// Attempts and Connected have a value for each second: the attempts in it, and the
	// devices that are connected at its end.
	Attempts, Connected []int

	Total int64   // number of attempts
	Peak  int     // attempts in the busiest second
	At    int     // that second
	Level float64 // attempts per second in the last quarter of the outage, a minute at most

	// Back is the time until a share of the devices is connected again, after the
	// outage, or after the start if there is none.
	Back Quantiles[time.Duration]

	// PerDevice is the distribution of the attempts of a device.
	PerDevice Quantiles[int]

	Away      int   // devices that are not connected at the end
	GaveUp    int   // of these, devices whose stream is idle: the policy conceals no more failures
	Unnoticed int   // devices that never noticed the outage
	Wasted    int64 // handshakes that were complete after the client's timeout
	Refused   int64 // attempts refused because the wait would have been too long

	Longest time.Duration // the longest wait in the queue of the server

	// Collapsed means that the fleet does not come back: all work of the server is
	// wasted. The simulation ends when this is certain.
	Collapsed bool

	Elapsed time.Duration // simulated
}

// Quantiles describe a distribution.
type Quantiles[T any] struct{ P50, P90, P99, Max T }

// Never is the time of an event that does not happen.
const Never = time.Duration(math.MaxInt64)

// result returns the result of a simulation that has ended.
func (f *fleet) result() *Result {
	last := f.end
	if f.stopped < f.end {
		last = min(f.end, max(f.stopped, f.lastConnect(), f.outageEnd)+second)
	}
	r := &Result{
		Client: *f.client, Scenario: *f.scenario, Unnoticed: f.unnoticed,
		Wasted: int64(f.wasted), Refused: int64(f.refused), Collapsed: f.collapsed,
		Longest: time.Duration(min(f.server.longest, never)) * time.Millisecond,
		Elapsed: time.Duration(last) * time.Millisecond,
	}
	n := 0
	for second := range (last + second - 1) / second {
		attempts := int(f.attempts[second])
		r.Attempts = append(r.Attempts, attempts)
		r.Total += int64(attempts)
		if attempts > r.Peak {
			r.Peak, r.At = attempts, int(second)
		}
		for i := second * 10; i < min(second*10+10, uint32(len(f.connects))); i++ {
			n += int(f.connects[i])
		}
		r.Connected = append(r.Connected, n)
	}
	r.Level = r.level()
	perDevice := make([]uint32, len(f.devices))
	for i, d := range f.devices {
		perDevice[i] = d.attempts
		if d.state != connected {
			r.Away++
			if d.state == idle {
				r.GaveUp++
			}
		}
	}
	slices.Sort(perDevice)
	quantile := func(q float64) int { return int(perDevice[rank(len(perDevice), q)-1]) }
	r.PerDevice = Quantiles[int]{quantile(0.5), quantile(0.9), quantile(0.99), quantile(1)}
	r.Back = Quantiles[time.Duration]{f.back(0.5), f.back(0.9), f.back(0.99), f.back(1)}
	return r
}

// rank returns the number of elements that make up a share of n.
func rank(n int, q float64) int { return max(1, int(math.Ceil(float64(n)*q))) }

func (f *fleet) lastConnect() uint32 {
	for i := len(f.connects) - 1; i >= 0; i-- {
		if f.connects[i] != 0 {
			return uint32(i+1) * tenth
		}
	}
	return 0
}

// back returns when a share of the devices is connected.
func (f *fleet) back(q float64) time.Duration {
	want := rank(len(f.devices), q)
	n := 0
	for i, delta := range f.connects {
		n += int(delta)
		if t := uint32(i+1) * tenth; t > f.outageEnd && n >= want {
			return time.Duration(t-f.outageEnd) * time.Millisecond
		}
	}
	return Never
}

// level is Level of a result.
func (r *Result) level() float64 {
	to := int((r.Scenario.From + r.Scenario.Outage) / time.Second)
	from := to - min(60, max(1, int(r.Scenario.Outage/time.Second/4)))
	return mean(r.Attempts, from, to)
}

// mean returns the mean of values[from:to].
func mean(values []int, from, to int) float64 {
	from, to = max(0, from), min(to, len(values))
	sum := 0
	for _, v := range values[min(from, to):to] {
		sum += v
	}
	return float64(sum) / float64(max(1, to-from))
}
