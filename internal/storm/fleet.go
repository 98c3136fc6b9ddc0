package storm

import (
	"math"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// Ticks are milliseconds since the start.
const (
	tenth  = 100
	second = 1000
	never  = math.MaxUint32
)

// tick returns a duration in ticks.
func tick(d time.Duration) uint32 { return uint32(min(d.Milliseconds(), never)) }

// after adds ticks.
func after(t uint32, wait uint64) uint32 { return uint32(min(uint64(t)+wait, never)) }

// A state is the state of a device.
type state uint8

const (
	waiting   state = iota // due is the time of the next attempt
	connected              // due is the time of CONNECTED or, if connections end, of the end
	idle                   // no automatic event follows
)

// A device takes 16 bytes, since a fleet has millions.
type device struct {
	next     uint32 // in the event queue
	due      uint32
	attempts uint32
	tries    uint16 // failures in this series
	state    state
}

// A fleet is a running simulation.
type fleet struct {
	client    *Client
	scenario  *Scenario
	retry     *policy.Retry
	devices   []device
	workers   int
	from      uint32 // start of the outage
	outageEnd uint32
	end       uint32
	rtt       uint32
	timeout   uint32
	steady    uint32

	attempts []uint32 // by second
	connects []int32  // per tenth of a second: connections made minus connections ended

	server    server
	stopped   uint32 // time when no events were left
	collapsed bool
	wasted    uint64
	refused   uint64
	unnoticed int
}

// random returns 64 random bits for a purpose in the life of a device. They depend
// only on the seed and the arguments, so that devices can be simulated in any
// order.
func (f *fleet) random(device int, n uint32, p purpose) uint64 {
	z := f.scenario.Seed + uint64(p)<<56 + (uint64(device)<<32|uint64(n))*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// A purpose separates random numbers.
type purpose uint8

const (
	forWait purpose = iota
	forBoot
	forNotice
	forClock
	forProgram
	forChurn
)

// within returns a random tick below limit.
func within(random uint64, limit uint32) uint32 {
	return uint32(random >> 32 * uint64(limit) >> 32)
}

// boot sets the devices to their initial state.
func (f *fleet) boot() {
	spread := tick(f.scenario.Boot)
	if spread == 0 {
		for i := range f.devices {
			d := &f.devices[i]
			d.state = connected
			if f.scenario.Churn > 0 {
				d.due = f.lifetime(i, d)
			}
		}
		f.connects[0] = int32(len(f.devices))
		return
	}
	for i := range f.devices {
		f.devices[i].due = within(f.random(i, 0, forBoot), spread)
	}
}

// lifetime returns how long a connection lasts.
func (f *fleet) lifetime(i int, d *device) uint32 {
	u := float64(f.random(i, d.attempts, forChurn)>>11+1) / (1 << 53)
	return uint32(min(-math.Log(u)*float64(f.scenario.Churn.Milliseconds()), never))
}

// failed handles a failed attempt or a lost connection of a device: it counts, and
// waits or gives up.
func (f *fleet) failed(i int, d *device, t uint32, least uint32) {
	if d.tries < math.MaxUint16 {
		d.tries++
	}
	if !f.retry.Conceals(d.tries) {
		f.giveUp(i, d, t)
		return
	}
	wait := uint64(f.retry.Delay(d.tries-1, uint16(f.random(i, d.attempts, forWait)>>48)) / time.Millisecond)
	wait = max(wait, uint64(least))
	if f.scenario.ClockError != 0 {
		wait = f.clock(i, wait)
	}
	d.state, d.due = waiting, after(t, wait)
}

// clock converts a wait to the clock of a device.
func (f *fleet) clock(i int, wait uint64) uint64 {
	u := float64(f.random(i, 0, forClock)>>11)/(1<<52) - 1
	return uint64(math.Round(float64(wait) * (1 + u*f.scenario.ClockError/100)))
}

// giveUp leaves a stream idle until the next request of the program.
func (f *fleet) giveUp(i int, d *device, t uint32) {
	every := tick(f.scenario.Every)
	if every == 0 {
		d.state = idle
		return
	}
	spread := every
	if f.scenario.ClockSpread > 0 {
		spread = tick(f.scenario.ClockSpread)
	}
	phase := within(f.random(i, 0, forProgram), spread)
	turns := uint64(0)
	if t >= phase {
		turns = uint64(t-phase)/uint64(every) + 1
	}
	d.state, d.due = waiting, after(phase, turns*uint64(every))
}

// lost handles the end of a device's connection. A connection that lasted long
// enough ends the series of failures.
func (f *fleet) lost(i int, d *device, t uint32, long bool) {
	if long || f.client.LWS {
		d.tries = 0
	}
	if f.client.Stream.Opportunistic {
		f.giveUp(i, d, t)
		return
	}
	f.failed(i, d, t, 0)
}
