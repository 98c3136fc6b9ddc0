package mqtt

import (
	"context"
	"net"
	"sync"
	"time"
)

// maxUnsent is how many bytes may wait to be written before whoever adds to them
// has to wait too.
const maxUnsent = 64 << 10

// flushLimit is how long a stream that is to end waits for what it writes.
const flushLimit = 3 * time.Second

// A writer writes the packets of a connection, whole and in order. Whoever has
// a packet writes it himself if nobody is writing; else the one who is takes it
// along. So small packets cost no change of goroutine, and many at a time cost
// one write.
type writer struct {
	nc   net.Conn
	fail func(error) // ends the connection
	kick chan struct{}

	mu      sync.Mutex
	turn    sync.Cond // something below has changed
	err     error     // nothing more is written
	writing bool
	by      context.Context // of the stream that is writing; nil if it is nobody's
	hurry   bool            // there is a deadline
	whole   bool            // nobody is in the middle of a message, see begin
	out     []byte
	spare   []byte
	added   uint64 // bytes of packets, ever
	written uint64
	latest  time.Time // when the latest write ended
	closed  bool      // DISCONNECT has been added, and is the last [MQTT-3.14.4-2]
}

func newWriter(nc net.Conn, fail func(error)) *writer {
	w := &writer{nc: nc, fail: fail, kick: make(chan struct{}, 1), whole: true, latest: time.Now()}
	w.turn.L = &w.mu
	return w
}

// run writes what post has left, until done is closed.
func (w *writer) run(done <-chan struct{}) {
	for {
		select {
		case <-w.kick:
			w.mu.Lock()
			if !w.writing && w.whole {
				w.flush()
			}
			w.mu.Unlock()
		case <-done:
			return
		}
	}
}

// post adds packets, and does not wait for anything.
func (w *writer) post(add func([]byte) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(add)
	if !w.writing {
		w.wake()
	}
}

func (w *writer) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *writer) add(add func([]byte) []byte) {
	if w.closed {
		return
	}
	n := len(w.out)
	w.out = add(w.out)
	w.added += uint64(len(w.out) - n)
}

// flush writes all there is; what is left for a stream that is to end another
// writes. mu is held, but not while it writes; nobody else is writing, or in the
// middle of a message.
func (w *writer) flush() {
	w.writing = true
	for len(w.out) > 0 && w.err == nil {
		if w.by != nil && w.by.Err() != nil {
			w.wake()
			break
		}
		w.flushOnce()
	}
	w.writing = false
	w.turn.Broadcast()
}

// flushOnce writes what there is now.
func (w *writer) flushOnce() {
	b := w.out
	w.out, w.spare = w.spare[:0], nil
	w.write(b)
	w.written += uint64(len(b))
	if cap(b) <= 2*maxUnsent {
		w.spare = b[:0]
	}
}

// write writes b. mu is held, but not while it does. writing is true.
func (w *writer) write(b []byte) {
	w.mu.Unlock()
	_, err := w.nc.Write(b)
	now := time.Now()
	if err != nil {
		w.fail(err)
	}
	w.mu.Lock()
	w.latest = now
	if err != nil && w.err == nil {
		w.err = err
	}
	if w.hurry && w.err == nil {
		w.hurry = false
		w.nc.SetWriteDeadline(time.Time{})
	}
}

// room waits until there is room for more to be posted.
func (w *writer) room() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.out) >= maxUnsent && w.err == nil {
		w.turn.Wait()
	}
}

// send adds a packet, and returns when it has been written, or ctx is done.
func (w *writer) send(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.addWhole(ctx, add); err != nil {
		return err
	}
	return w.flushAll(ctx)
}

// last is send for a packet after which there is none.
func (w *writer) last(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.addWhole(ctx, add); err != nil {
		return err
	}
	w.closed = true
	return w.flushAll(ctx)
}

// queue adds a packet, for push, or whoever else writes next, to write.
func (w *writer) queue(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.addWhole(ctx, add)
}

// push returns when all that has been added has been written, or ctx is done.
func (w *writer) push(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushAll(ctx)
}

// addWhole adds a packet when there is room. mu is held, but not while it waits.
func (w *writer) addWhole(ctx context.Context, add func([]byte) []byte) error {
	for w.err == nil && ctx.Err() == nil && (!w.whole || len(w.out) >= maxUnsent) {
		if w.whole && !w.writing { // what queue has added
			w.by = ctx
			w.flush()
			w.by = nil
			continue
		}
		w.turn.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.err != nil {
		return w.err
	}
	w.add(add)
	return nil
}

// flushAll is push. mu is held.
func (w *writer) flushAll(ctx context.Context) error {
	for end := w.added; w.written < end; {
		switch {
		case w.err != nil:
			return w.err
		case ctx.Err() != nil:
			if !w.writing {
				w.wake()
			}
			return context.Cause(ctx)
		case w.writing || !w.whole:
			w.turn.Wait()
		default:
			w.by = ctx
			w.flush()
			w.by = nil
		}
	}
	return nil
}

// begin is send for the start of a packet. If there is no error nobody else
// writes until end is called.
func (w *writer) begin(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && ctx.Err() == nil && (!w.whole || w.writing) {
		w.turn.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.err != nil {
		return w.err
	}
	w.whole = false
	w.add(add)
	w.writing, w.by = true, ctx
	w.flushOnce() // what comes meanwhile has to wait
	w.writing, w.by = false, nil
	w.turn.Broadcast()
	if w.err != nil {
		w.whole = true
	}
	return w.err
}

// piece writes a piece of the packet that has been begun.
func (w *writer) piece(ctx context.Context, b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil { // interrupt comes no more
		return context.Cause(ctx)
	}
	if w.err == nil {
		w.writing, w.by = true, ctx
		w.write(b)
		w.writing, w.by = false, nil
	}
	return w.err
}

// end ends the packet that has been begun.
func (w *writer) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole = true
	if len(w.out) > 0 {
		w.wake()
	}
	w.turn.Broadcast()
}

// interrupt makes those look whose context is done, as ctx is, and gives what is
// being written for it a limit.
func (w *writer) interrupt(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing && w.by == ctx && w.err == nil {
		w.hurry = true
		w.nc.SetWriteDeadline(time.Now().Add(flushLimit))
	}
	w.turn.Broadcast()
}

// stop makes all who wait return err.
func (w *writer) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.turn.Broadcast()
}

// stuck reports whether something is being written.
func (w *writer) stuck() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writing
}

// silence returns since when nothing has been written.
func (w *writer) silence() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}
