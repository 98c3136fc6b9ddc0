package storm

import (
	"math"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Burst compares the busiest second late in an outage with the mean. Devices that
// lose their server together and wait for nearly the same time collide again and
// again.
type Burst struct {
	Peak        int     // attempts in the busiest second
	Mean, Ratio float64 // attempts per second, and Peak / Mean
}

// Synchronised is the ratio of a burst at which a fleet counts as synchronised.
const Synchronised = 4

const (
	leastBurst  = 20              // mean below which bursts occur by chance
	leastWindow = time.Minute     // of a burst
	leastOutage = 5 * time.Minute // with a burst
)

// Burst returns the burst of the last minute of the outage, or of the last wait if
// that is longer. It is empty if the outage is shorter than five minutes or three
// waits, or if there are too few devices for a result.
func (r *Result) Burst() Burst {
	window := max(leastWindow, longWait(r.Client.retry()))
	to := int((r.Scenario.From + r.Scenario.Outage) / time.Second)
	from := to - int(window/time.Second)
	if r.Scenario.Outage < max(leastOutage, 3*window) || to > len(r.Attempts) {
		return Burst{}
	}
	b := Burst{Mean: mean(r.Attempts, from, to)}
	if b.Mean < leastBurst {
		return Burst{}
	}
	b.Peak = slices.Max(r.Attempts[from:to])
	b.Ratio = float64(b.Peak) / b.Mean
	return b
}

// longWait returns the mean of the wait that a scheme repeats.
func longWait(r *policy.Retry) time.Duration {
	return r.Delay(math.MaxUint16, math.MaxUint16/2)
}

// Bounds of the waits that Lockstep examines: with shorter ones the busiest second cannot
// be Synchronised, and longer ones add no load.
const (
	shortestWait = Synchronised * time.Second
	longestWait  = time.Hour
)

// A LongOutage is an outage after which Lockstep examines a fleet.
type LongOutage struct {
	Client   Client
	Scenario Scenario
}

// Lockstep returns a long outage, an hour or ten waits, whose burst shows whether a
// scheme keeps devices in step. It returns false if the scheme gives up earlier, or
// if a closed form shows that devices with it are spread.
func Lockstep(r *policy.Retry) (o LongOutage, ok bool) {
	wait := longWait(r)
	outage := max(time.Hour, 10*wait)
	if r == nil || r.Conceal != math.MaxUint16 || wait < shortestWait || wait > longestWait {
		return o, false
	}
	// The sum of many random waits is approximately normal.
	spread := r.Delay(math.MaxUint16, math.MaxUint16) - r.Delay(math.MaxUint16, 0)
	deviation := spread.Seconds() / math.Sqrt(12) * math.Sqrt(outage.Seconds()/wait.Seconds())
	if wait.Seconds()/(deviation*math.Sqrt(2*math.Pi)) < Synchronised/2 {
		return o, false
	}
	devices := max(1000, int(2*leastBurst*wait.Seconds()))
	return LongOutage{
		Client{Stream: &policy.StreamType{Protocol: policy.ProtocolRaw, Retry: r}},
		Scenario{Devices: devices, Outage: outage, For: outage, Seed: 1},
	}, true
}

// Burst simulates the outage. It is empty if the devices are not synchronised.
func (o LongOutage) Burst() Burst {
	r, err := Run(o.Client, o.Scenario)
	if err != nil {
		return Burst{} // the scenario is valid
	}
	if b := r.Burst(); b.Ratio >= Synchronised {
		return b
	}
	return Burst{}
}
