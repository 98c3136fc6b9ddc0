package storm

import (
	"math"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// toOutageEnd simulates until the outage is over.
func (f *fleet) toOutageEnd() {
	if f.outageEnd == f.from {
		return
	}
	f.serve(0, f.from)
	f.server = server{}
	f.stopped, f.collapsed = 0, false

	// During the outage no device depends on another.
	answer, least := f.rtt, tick(f.scenario.RetryAfter)
	if f.scenario.Kind == Silent {
		answer = f.timeout
	}
	waits := f.waits(answer, least)
	var wg sync.WaitGroup
	var mu sync.Mutex
	size := (len(f.devices) + f.workers - 1) / f.workers
	for first := 0; first < len(f.devices); first += size {
		wg.Go(func() {
			w := outage{fleet: f, answer: answer, least: least, steadyWaits: waits, attempts: make([]uint32, len(f.attempts))}
			for i := first; i < min(first+size, len(f.devices)); i++ {
				w.run(i)
			}
			mu.Lock()
			defer mu.Unlock()
			for i, n := range w.attempts {
				f.attempts[i] += n
			}
			f.connects[f.from/tenth] -= int32(w.lost)
			f.unnoticed += w.unnoticed
		})
	}
	wg.Wait()
}

// An outage is the simulation of a part of the fleet during the outage.
type outage struct {
	*fleet
	answer    uint32 // ticks until an attempt has failed
	least     uint32 // minimum wait that the server requests
	attempts  []uint32
	lost      int
	unnoticed int

	// steadyWaits holds, for each random number, the ticks from one attempt to the
	// next while the last wait of the scheme repeats. It is nil if the scheme gives
	// up.
	steadyWaits []uint32
}

// waits returns steadyWaits.
func (f *fleet) waits(answer, least uint32) []uint32 {
	if f.retry == nil || f.retry.Conceal != math.MaxUint16 || f.scenario.Kind == Closed || f.scenario.ClockError != 0 || len(f.devices) < 1000 {
		return nil
	}
	all := make([]uint32, math.MaxUint16+1)
	last := uint16(min(len(f.retry.Backoff), math.MaxUint16))
	for random := range all {
		all[random] = after(answer, max(uint64(f.retry.Delay(last, uint16(random))/time.Millisecond), uint64(least)))
	}
	return all
}

// repeat makes attempts until the outage is over. It duplicates the loop of run,
// since a long outage of a large fleet has billions of attempts.
func (w *outage) repeat(i int, d *device) {
	due, n := uint64(d.due), d.attempts
	for due < uint64(w.outageEnd) {
		w.attempts[uint32(due)/second]++
		n++
		due += uint64(w.steadyWaits[w.random(i, n, forWait)>>48])
	}
	d.tries = uint16(min(uint32(d.tries)+n-d.attempts, math.MaxUint16))
	d.attempts, d.due = n, uint32(min(due, never))
}

// run simulates a device.
func (w *outage) run(i int) {
	d := &w.devices[i]
	if d.state == connected {
		at, ok := w.notice(i)
		if !ok {
			w.unnoticed++
			return
		}
		w.lost++
		long := w.scenario.Churn > 0 || w.from >= w.steady && d.due <= w.from-w.steady
		w.fleet.lost(i, d, max(at, w.from), long)
	}
	for d.state == waiting && d.due < w.outageEnd {
		if w.steadyWaits != nil && int(d.tries) >= len(w.retry.Backoff) {
			w.repeat(i, d)
			continue
		}
		w.attempts[d.due/second]++
		d.attempts++
		t := after(d.due, uint64(w.answer))
		if w.scenario.Kind == Closed {
			w.fleet.lost(i, d, t, false)
		} else {
			w.failed(i, d, t, w.least)
		}
	}
}

// notice returns when a device notices that its connection is lost, and whether it
// does.
func (w *outage) notice(i int) (at uint32, ok bool) {
	random := w.random(i, 0, forNotice)
	spread := tick(w.scenario.Notice)
	if spread > 0 || w.scenario.Kind != Silent {
		return after(w.from, uint64(within(random, spread))), true
	}
	ping, hangup := Probes(w.client.Stream)
	if hangup == 0 {
		return 0, false
	}
	if ping == 0 || ping > hangup {
		ping = hangup
	}
	// The latest proof that the connection works is up to one ping old.
	at = after(w.from, uint64(tick(hangup)-within(random, tick(ping))))
	return at, at < w.outageEnd
}

// Probes returns [policy.StreamType.Validity] for a protocol that checks its
// connections, and 0 for others.
func Probes(st *policy.StreamType) (ping, hangup time.Duration) {
	switch st.Protocol {
	case policy.ProtocolH2, policy.ProtocolWS, policy.ProtocolMQTT:
		return st.Validity()
	}
	return 0, 0
}
