package proxy

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An outbox holds frames that have not been written to the client.
type outbox struct {
	buf      []byte
	large    *largeBuffer // initial buffer of buf; nil if it had none
	frames   []outFrame
	flight   int  // frames being written
	running  bool // there is a writer
	ending   bool // close the link when all frames have been written
	paused   bool // the stream is
	empty    bool // an empty payload frame has been sent, see outFrame
	own      bool // the client is of this module, and accepts frames of any length
	pacer    pacer
	held     bool        // the last frame waits for the end of its message, see holdLocked
	hold     *time.Timer // ends that; nil if it does not run
	unread   int         // bytes that the client may not have read
	size     int         // of proxy_buflen
	onAbove  int         // bytes above which the stream is paused
	offBelow int         // bytes below which it resumes
}

// An outFrame is a frame in an outbox. The client of lws reads 2048 bytes at a
// time. It splits a payload frame that crosses the end of a read, and marks each
// piece with the flags of the whole frame. After an empty payload frame it even
// loses all pieces of a split frame except the last.
type outFrame struct {
	n       int
	payload bool
	whole   bool // must not be split
}

// A pacer knows what the client has read.
type pacer interface {
	// wait waits until the client has read everything; idle reports whether it has.
	wait() error
	idle() bool
	// tryWrite writes as much as the socket accepts at once.
	tryWrite(b []byte) (int, error)
}

const (
	// clientRead is the size of a read of the client of lws.
	clientRead = 2048
	// maxWrite is the maximum size of a write.
	maxWrite = 16 << 10
	// slack is how much more than proxy_buflen a link may hold: the last piece
	// before the pause of the stream, states and metadata.
	slack = 256 << 10
)

func (b *outbox) limit(size, onAbove, offBelow int) {
	b.size = size
	if onAbove == 0 || onAbove > size {
		onAbove = size / 2
	}
	if offBelow == 0 || offBelow > onAbove {
		offBelow = onAbove / 2
	}
	b.onAbove, b.offBelow = onAbove, offBelow
}

// full reports whether the stream has to wait, because of the outbox or others, and
// records the pause.
func (b *outbox) full(limited bool) bool {
	b.paused = b.paused || len(b.buf) > b.onAbove || limited && len(b.buf) > 0
	return b.paused
}

// sendLocked sends a frame other than payload.
func (l *link) sendLocked(frame []byte, whole bool) {
	l.out.buf = append(l.out.buf, frame...)
	l.queuedLocked(outFrame{n: len(frame), whole: whole})
}

// payloadLocked sends payload in frames that lws's client does not split.
func (l *link) payloadLocked(data []byte, flags policy.Flags, ride string) {
	if len(data) == 0 && flags == policy.FlagEOM && l.out.endLast() {
		return
	}
	last := flags & (policy.FlagEOM | policy.FlagRelatedEnd)
	flags &= policy.FlagSOM | policy.FlagRelatedStart
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), l.out.maxPayload())
		p := sspcwire.Payload{Flags: flags, Rideshare: ride, Data: data[:n], Time: now()}
		if data = data[n:]; len(data) == 0 {
			p.Flags |= last
		}
		size := len(l.out.buf)
		if l.out.buf == nil && n+len(data) > keptBuffer {
			l.out.large = largeBuffers.Get().(*largeBuffer)
			l.out.buf = l.out.large[:0]
		}
		buf, err := sspcwire.AppendPayload(l.out.buf, toClient, p)
		if err != nil { // impossible: everything is within the limits
			l.closeLocked(err)
			return
		}
		l.out.buf = buf
		l.out.empty = l.out.empty || n == 0
		l.queuedLocked(outFrame{n: len(buf) - size, payload: true, whole: !l.out.own && (p.Flags != 0 || ride != "" || l.out.empty)})
		flags = 0
	}
}

// maxPayload returns the maximum size of payload in a frame.
func (b *outbox) maxPayload() int {
	if b.own {
		return sspcwire.MaxOwnPayload
	}
	return sspcwire.MaxLWSPayload
}

// endLast marks the last waiting frame as the end of a message, which saves an
// empty frame. It returns false if there is none.
func (b *outbox) endLast() bool {
	i := len(b.frames) - 1
	if i < b.flight {
		return false
	}
	f := &b.frames[i]
	flags := len(b.buf) - f.n + 6 // offset of the last byte of the flags
	if !f.payload || policy.Flags(b.buf[flags])&policy.FlagEOM != 0 {
		return false
	}
	b.buf[flags] |= byte(policy.FlagEOM)
	f.whole, b.held = true, false
	return true
}

var errSlowClient = errors.New("the client reads too slowly")

// queuedLocked records a frame that has been appended to buf. The caller must call
// flushLocked afterwards.
func (l *link) queuedLocked(f outFrame) {
	if l.closed {
		return
	}
	l.out.held = false
	l.out.frames = append(l.out.frames, f)
	l.accountLocked()
	l.p.stats.framesOut.Add(1)
	if len(l.out.buf) > l.out.size+slack {
		l.closeLocked(fmt.Errorf("%w: %d bytes", errSlowClient, len(l.out.buf)))
		return
	}
}

// flushLocked writes what the client accepts at once, and leaves the rest to a
// goroutine.
func (l *link) flushLocked() {
	b := &l.out
	for !l.closed && !b.running && b.ready() {
		n, whole := b.next()
		if b.pacer == nil || b.waits(n, whole) && !b.pacer.idle() {
			l.startWriterLocked()
			return
		}
		if b.waits(n, whole) {
			b.unread = 0
		}
		m, err := b.pacer.tryWrite(b.buf[:n])
		if err != nil {
			l.closeLocked(err)
			return
		}
		l.wroteLocked(m)
		if m < n {
			l.startWriterLocked()
			return
		}
	}
	l.emptiedLocked()
}

// startWriterLocked starts the writing goroutine.
func (l *link) startWriterLocked() {
	l.out.flight = 0
	l.out.running = true
	l.p.running.Add(1) // the reader, or the renewal of the stream, has not ended
	go l.write()
}

// waits reports whether a write has to wait until the client has read everything.
func (b *outbox) waits(n int, whole bool) bool {
	return whole && b.pacer != nil && b.unread > 0 && b.unread+n > clientRead
}

// wroteLocked removes the first n bytes, which have been written.
func (l *link) wroteLocked(n int) {
	b := &l.out
	b.unread = min(b.unread+n, clientRead+1)
	b.buf = b.buf[n:]
	for n > 0 {
		if f := &b.frames[0]; n < f.n { // split by the system
			f.n -= n
			f.payload, f.whole = false, false
			break
		}
		n -= b.frames[0].n
		b.frames = b.frames[1:]
	}
	b.flight = 0
	l.accountLocked()
	if b.paused && len(b.buf) < b.offBelow {
		b.paused = false
		l.resumeLocked()
	}
}

// emptiedLocked is called when there may be nothing left to write.
func (l *link) emptiedLocked() {
	b := &l.out
	if b.running || len(b.frames) > 0 && !l.closed {
		return // it may be held
	}
	if b.ending {
		l.closeLocked(errShutdown)
	}
	if cap(b.buf) > keptBuffer || l.closed {
		b.buf, b.frames = nil, nil
	}
	if b.buf == nil && b.large != nil {
		largeBuffers.Put(b.large)
		b.large = nil
	}
}

// A largeBuffer holds frames of payload.
type largeBuffer [sspcwire.OwnBatch]byte

var largeBuffers = sync.Pool{New: func() any { return new(largeBuffer) }}

// keptBuffer is the maximum size of a buffer that a link keeps while it has nothing
// to write.
const keptBuffer = 4096

// write writes frames until none is left.
func (l *link) write() {
	defer l.p.running.Done()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &l.out
	for !l.closed && b.ready() {
		n, whole := b.next()
		batch, wait := b.buf[:n], b.waits(n, whole)
		l.mu.Unlock()
		var err error
		if wait {
			err = b.pacer.wait()
		}
		if err == nil {
			_, err = l.conn.Write(batch)
		}
		l.mu.Lock()
		if err != nil {
			l.closeLocked(err)
			break
		}
		if wait {
			b.unread = 0
		}
		l.wroteLocked(n)
	}
	b.running = false
	l.emptiedLocked()
}

// holdTime is how long the last frame of a body waits for the end.
const holdTime = 20 * time.Millisecond

// holdLocked holds the last queued frame back, so that it can be marked as the end
// of its message. Over connections without a pacer, an empty frame instead would
// make the client of lws lose payload of the next response.
func (l *link) holdLocked() {
	b := &l.out
	if b.pacer != nil || b.own || !l.st.IsHTTP() || l.closed || len(b.frames) == 0 {
		return
	}
	b.held = true
	if b.hold == nil {
		b.hold = time.AfterFunc(holdTime, l.release)
	} else {
		b.hold.Reset(holdTime)
	}
}

// release releases the frame that holdLocked holds back.
func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out.held = false
	l.flushLocked()
}

// ready reports whether there is a frame to write.
func (b *outbox) ready() bool { return len(b.frames) > 1 || len(b.frames) == 1 && !b.held }

// next chooses the frames for the next write. It returns their size, and whether
// one of them must not be split.
func (b *outbox) next() (n int, whole bool) {
	b.flight = 0
	frames := b.frames
	if b.held {
		frames = frames[:len(frames)-1]
	}
	for _, f := range frames {
		size := maxWrite
		if b.own {
			size = sspcwire.OwnBatch
		}
		if whole || f.whole {
			size = clientRead
		}
		if n > 0 && n+f.n > size {
			break
		}
		n += f.n
		whole = whole || f.whole
		b.flight++
	}
	return n, whole
}
