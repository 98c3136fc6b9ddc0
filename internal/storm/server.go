package storm

import "math"

// A server makes one handshake at a time.
type server struct {
	free    float64 // tick at which all pending handshakes are done
	longest float64 // longest wait
}

// serve simulates the fleet while the server works, until it is certain that the
// fleet does not come back.
func (f *fleet) serve(from, to uint32) {
	s := newStuck(f)
	f.serveUntil(from, to, func(t uint32) bool {
		f.collapsed = to == f.end && s.check(t)
		return f.collapsed
	})
}

// serveUntil is like serve, with a function that may end it each second.
func (f *fleet) serveUntil(from, to uint32, stop func(t uint32) bool) {
	if to <= from {
		return
	}
	w := newWheel(f.devices)
	for i := range f.devices {
		if d := &f.devices[i]; f.event(d) && d.due < to {
			d.due = max(d.due, from)
			w.add(i)
		}
	}
	t := from
	do := func(i int) {
		d := &f.devices[i]
		if d.state == connected {
			f.connects[t/tenth]--
			f.lost(i, d, t, true)
		} else {
			f.attempt(i, d, t, to)
		}
		if f.event(d) && d.due < to {
			d.due = max(d.due, t+1)
			w.add(i)
		}
	}
	for ; t < to && w.pending > 0; t++ {
		w.take(t, do)
		if t%second == 0 && stop(t) {
			break
		}
	}
	f.stopped = t
}

// event reports whether something happens to a device at its time.
func (f *fleet) event(d *device) bool {
	return d.state == waiting || d.state == connected && f.scenario.Churn > 0
}

// attempt makes an attempt at t. The server works until to.
func (f *fleet) attempt(i int, d *device, t, to uint32) {
	f.attempts[t/second]++
	d.attempts++
	done := float64(t)
	if f.scenario.Capacity > 0 {
		start := max(done, f.server.free)
		wait := start - done
		if limit := f.scenario.MaxWait; limit > 0 && wait > float64(limit.Milliseconds()) {
			f.refused++
			f.failed(i, d, after(t, uint64(f.rtt)), 0)
			return
		}
		f.server.longest = max(f.server.longest, wait)
		done = start + second/f.scenario.Capacity
		f.server.free = done
	}
	answer := done + float64(f.rtt)
	switch {
	case answer > float64(t)+float64(f.timeout):
		f.wasted++
		f.failed(i, d, after(t, uint64(f.timeout)), 0)
	case done >= float64(to) && to == f.from && f.scenario.Kind != Silent:
		f.failed(i, d, to, 0) // the outage interrupts the handshake
	case done >= float64(to):
		f.failed(i, d, after(t, uint64(f.timeout)), 0)
	default:
		f.connect(i, d, uint32(answer))
	}
}

func (f *fleet) connect(i int, d *device, t uint32) {
	d.state, d.due = connected, t
	if t < f.end {
		f.connects[t/tenth]++
	}
	if f.scenario.Churn == 0 {
		return
	}
	life := f.lifetime(i, d)
	d.due = after(t, uint64(life))
	if !f.client.LWS && life < f.steady {
		return // the series of failures continues
	}
	d.tries = 0
}

// A stuck detects a fleet that never comes back: for two cycles, of a timeout and
// the longest wait each, no device has connected, and the queue has not become
// shorter. Before that, all devices must have reached the last wait of their
// scheme, since until then their attempts become less frequent; and they must not
// give up.
type stuck struct {
	fleet     *fleet
	cycle     uint32
	next      uint32
	connected int64
	sum       int64
	counted   uint32
	queue     float64
	cycles    int
}

func newStuck(f *fleet) *stuck {
	s := &stuck{fleet: f, cycle: f.timeout + f.steady + second, next: never}
	if f.retry == nil || f.retry.Conceal < math.MaxUint16 || f.scenario.Capacity == 0 {
		return s
	}
	// The last device starts when it loses its server, or boots.
	s.next = max(f.from, tick(f.scenario.Boot))
	for tries := range min(len(f.retry.Backoff), math.MaxUint16) {
		wait := f.retry.Delay(uint16(tries), math.MaxUint16)
		s.next = after(s.next, uint64(tick(wait))+uint64(f.timeout))
	}
	return s
}

func (s *stuck) check(t uint32) bool {
	f := s.fleet
	if t < s.next {
		return false
	}
	for ; s.counted < t/tenth; s.counted++ {
		s.sum += int64(max(f.connects[s.counted], 0))
	}
	queue := f.server.free - float64(t)
	if s.sum == s.connected && queue >= s.queue && queue > float64(f.timeout) {
		s.cycles++
	} else {
		s.cycles = 0
	}
	s.connected, s.queue, s.next = s.sum, queue, after(t, uint64(s.cycle))
	return s.cycles >= 2
}
