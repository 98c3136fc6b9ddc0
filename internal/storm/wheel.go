package storm

// A wheel is a queue of the devices with a pending event, by time. It is a calendar
// of one list per tick, used cyclically; a device whose time is more than one turn
// away is examined once per turn. Lists are linked through the devices, so the
// queue needs no memory per event.
type wheel struct {
	devices []device
	heads   []uint32 // 1 more than the index of the first device
	pending int
}

const turn = 1 << 17 // ticks, about two minutes

func newWheel(devices []device) *wheel {
	return &wheel{devices: devices, heads: make([]uint32, turn)}
}

// add adds a device, at its time.
func (w *wheel) add(i int) {
	d := &w.devices[i]
	head := &w.heads[d.due%turn]
	d.next = *head
	*head = uint32(i) + 1
	w.pending++
}

// take calls do for each device whose time is t. do may add devices with a later
// time.
func (w *wheel) take(t uint32, do func(i int)) {
	head := &w.heads[t%turn]
	list := *head
	*head = 0
	for list != 0 {
		i := int(list - 1)
		d := &w.devices[i]
		list = d.next
		w.pending--
		if d.due == t {
			do(i)
		} else {
			w.add(i)
		}
	}
}
