package storm

// A server makes handshakes one after the other.
type server struct {
	free    float64 // the tick at which all that has arrived is done
	longest float64 // wait
}

// serve simulates the fleet while the server works.
func (f *fleet) serve(from, to uint32) {
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
	stuck := newStuck(f)
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
		if to == f.end && t%second == 0 && stuck.check(t) {
			f.collapsed = true
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
		f.failed(i, d, to, 0) // the outage ends the handshake
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
		return // the series of failures goes on
	}
	d.tries = 0
}

// A stuck watches for a fleet that never comes back: for two cycles, of a timeout and
// the longest wait each, nobody has connected, and the queue has not become shorter.
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
	return &stuck{fleet: f, cycle: f.timeout + f.steady + second}
}

func (s *stuck) check(t uint32) bool {
	f := s.fleet
	for ; s.counted < t/tenth; s.counted++ {
		s.sum += int64(max(f.connects[s.counted], 0))
	}
	if t < s.next || f.scenario.Capacity == 0 {
		return false
	}
	queue := f.server.free - float64(t)
	if s.next > 0 && s.sum == s.connected && queue >= s.queue && queue > float64(f.timeout) {
		s.cycles++
	} else {
		s.cycles = 0
	}
	s.connected, s.queue, s.next = s.sum, queue, t+s.cycle
	return s.cycles >= 2
}
