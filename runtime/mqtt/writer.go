package mqtt

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// maxUnsent is the number of unwritten bytes at which a stream that adds a
	// packet has to wait.
	maxUnsent = 64 << 10

	// flushLimit is how long a stream that ends waits for its packets to be
	// written. See leaveLimit.
	flushLimit = 1500 * time.Millisecond
)

// A writer writes the packets of a connection, complete and in order. A caller
// writes its own packet if the writer is idle; otherwise the active caller batches
// it. So small packets need no change of goroutine, and many at a time need one
// write.
type writer struct {
	nc    net.Conn
	now   func() time.Time
	fail  func(error)   // ends the connection
	kicks chan struct{} // receives a value when run has something to write

	mu       sync.Mutex
	change   sync.Cond       // fields below have changed
	err      error           // if set, nothing more is written
	writing  bool            // a goroutine is writing
	by       context.Context // of the writing goroutine, see interrupt
	deadline bool            // nc has a write deadline
	partial  bool            // a packet has begun and not ended; see begin
	out      []byte          // packets to write
	spare    []byte          // memory for the next out
	added    uint64          // total bytes added to out
	written  uint64          // total bytes written
	latest   time.Time       // end of the latest write
	closed   bool            // the last packet has been added [MQTT-3.14.4-2]
}

func newWriter(nc net.Conn, now func() time.Time, fail func(error)) *writer {
	w := &writer{nc: nc, now: now, fail: fail, kicks: make(chan struct{}, 1), latest: now()}
	w.change.L = &w.mu
	return w
}

// run writes packets that no caller writes, until done is closed.
func (w *writer) run(done <-chan struct{}) {
	for {
		select {
		case <-w.kicks:
			w.mu.Lock()
			if !w.writing && !w.partial {
				w.flushLocked(context.Background())
			}
			w.mu.Unlock()
		case <-done:
			return
		}
	}
}

// post adds packets for run to write. It does not block.
func (w *writer) post(add func([]byte) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addLocked(add)
	if !w.writing {
		w.kick()
	}
}

// kick wakes run.
func (w *writer) kick() {
	select {
	case w.kicks <- struct{}{}:
	default:
	}
}

func (w *writer) addLocked(add func([]byte) []byte) {
	if w.closed {
		return
	}
	n := len(w.out)
	w.out = add(w.out)
	w.added += uint64(len(w.out) - n)
}

// flushLocked writes all packets in out. When by, the context of the calling
// stream, is done, it leaves the rest to run. It releases mu while it writes. It
// must not be called while writing or partial is set.
func (w *writer) flushLocked(by context.Context) {
	w.writing, w.by = true, by
	for len(w.out) > 0 && w.err == nil {
		if by.Err() != nil {
			w.kick()
			break
		}
		w.flushOnceLocked()
	}
	w.writing, w.by = false, nil
	w.change.Broadcast()
}

// flushOnceLocked writes the current packets.
func (w *writer) flushOnceLocked() {
	b := w.out
	w.out, w.spare = w.spare[:0], nil
	w.writeLocked(b)
	w.written += uint64(len(b))
	if cap(b) <= 2*maxUnsent {
		w.spare = b[:0]
	}
}

// writeLocked writes b, and releases mu meanwhile. writing must be set.
func (w *writer) writeLocked(b []byte) {
	w.mu.Unlock()
	_, err := w.nc.Write(b)
	now := w.now()
	if err != nil {
		w.fail(err)
	}
	w.mu.Lock()
	w.latest = now
	if err != nil && w.err == nil {
		w.err = err
	}
	if w.deadline && w.err == nil {
		w.deadline = false
		w.nc.SetWriteDeadline(time.Time{})
	}
}

// waitRoom waits until fewer than maxUnsent bytes wait to be written.
func (w *writer) waitRoom() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.out) >= maxUnsent && w.err == nil {
		w.change.Wait()
	}
}

// send adds a packet, and returns when it has been written or ctx is done.
func (w *writer) send(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.queueLocked(ctx, add); err != nil {
		return err
	}
	return w.pushLocked(ctx)
}

// last is like send, for the last packet.
func (w *writer) last(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.queueLocked(ctx, add); err != nil {
		return err
	}
	w.closed = true
	return w.pushLocked(ctx)
}

// queue adds a packet, which the next write includes.
func (w *writer) queue(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queueLocked(ctx, add)
}

// push returns when all packets added so far have been written or ctx is done.
func (w *writer) push(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pushLocked(ctx)
}

func (w *writer) queueLocked(ctx context.Context, add func([]byte) []byte) error {
	for w.err == nil && ctx.Err() == nil && (w.partial || len(w.out) >= maxUnsent) {
		if w.partial || w.writing {
			w.change.Wait()
		} else {
			w.flushLocked(ctx)
		}
	}
	if err := w.errLocked(ctx); err != nil {
		return err
	}
	w.addLocked(add)
	return nil
}

// errLocked returns the error of a context that is done, or of the writer.
func (w *writer) errLocked(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.err
}

func (w *writer) pushLocked(ctx context.Context) error {
	for end := w.added; w.written < end; {
		switch {
		case w.err != nil:
			return w.err
		case ctx.Err() != nil:
			if !w.writing {
				w.kick()
			}
			return context.Cause(ctx)
		case w.writing || w.partial:
			w.change.Wait()
		default:
			w.flushLocked(ctx)
		}
	}
	return nil
}

// begin sends the first part of a packet. If it returns nil, nothing else is
// written until end is called.
func (w *writer) begin(ctx context.Context, add func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && ctx.Err() == nil && (w.partial || w.writing) {
		w.change.Wait()
	}
	if err := w.errLocked(ctx); err != nil {
		return err
	}
	w.partial = true
	w.addLocked(add)
	w.writing, w.by = true, ctx
	w.flushOnceLocked()
	w.writing, w.by = false, nil
	w.change.Broadcast()
	if w.err != nil {
		w.partial = false
	}
	return w.err
}

// piece writes the next part of the packet of begin.
func (w *writer) piece(ctx context.Context, b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil { // interrupt would no longer have an effect
		return context.Cause(ctx)
	}
	if w.err == nil {
		w.writing, w.by = true, ctx
		w.writeLocked(b)
		w.writing, w.by = false, nil
	}
	return w.err
}

// end ends the packet of begin.
func (w *writer) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial = false
	if len(w.out) > 0 {
		w.kick()
	}
	w.change.Broadcast()
}

// interrupt wakes waiters whose context is done. If ctx, which is done, belongs to
// the stream that is writing, it limits that write to flushLimit.
func (w *writer) interrupt(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing && w.by == ctx && w.err == nil {
		w.deadline = true
		w.nc.SetWriteDeadline(time.Now().Add(flushLimit))
	}
	w.change.Broadcast()
}

// stop makes all methods return err.
func (w *writer) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.change.Broadcast()
}

// busy reports whether a write is running.
func (w *writer) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writing
}

// lastWrite returns the end of the latest write.
func (w *writer) lastWrite() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}
