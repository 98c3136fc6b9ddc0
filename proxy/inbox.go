package proxy

import (
	"errors"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcmux"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An inbox holds payload from a client that the stream has not sent yet.
type inbox struct {
	limit  int // of size
	data   []byte
	large  *largeBuffer // initial buffer of data; nil if it had none
	size   int          // of data
	pieces []piece
	room   chan struct{} // receives a value when a piece has been removed; nil until it is used

	inside  bool // the stream is within a message
	open    bool // the client is within a message
	discard bool // drop payload until the next start of a message: it belongs to a failed attempt
	broken  bool // the client has abandoned the message that the stream is sending
}

// A piece is the rest of a payload frame.
type piece struct {
	n     int
	flags policy.Flags
}

// cost returns the size of the queue including overhead, since a hostile client may
// send many empty frames.
func (b *inbox) cost() int { return b.size + 32*len(b.pieces) }

// put queues the payload of a frame. It reports whether there is payload to send. With
// messages set, a message that starts replaces an unfinished one: a frame sent before the
// client received DISCONNECTED may arrive after the proxy has reconnected.
func (b *inbox) put(data []byte, flags policy.Flags, messages bool) bool {
	flags &= policy.FlagSOM | policy.FlagEOM
	if b.discard {
		if flags&policy.FlagSOM == 0 {
			return false
		}
		b.discard = false
	}
	if b.open && messages && flags&policy.FlagSOM != 0 {
		b.dropOpen()
	}
	b.open = flags&policy.FlagEOM == 0
	if len(data) == 0 && flags == 0 {
		return false
	}
	if b.data == nil && len(data) > keptBuffer {
		if b.large == nil {
			b.large = largeBuffers.Get().(*largeBuffer)
		}
		b.data = b.large[:0]
	}
	b.data = append(b.data, data...)
	b.size += len(data)
	b.pieces = append(b.pieces, piece{len(data), flags})
	return true
}

// dropOpen drops the queued pieces of the unfinished message.
func (b *inbox) dropOpen() {
	atStart := false
	end := len(b.pieces)
	for end > 0 && !atStart && b.pieces[end-1].flags&policy.FlagEOM == 0 {
		end--
		atStart = b.pieces[end].flags&policy.FlagSOM != 0
		b.size -= b.pieces[end].n
	}
	b.pieces, b.data = b.pieces[:end], b.data[:b.size]
	b.broken = b.broken || b.inside && !atStart && end == 0
}

// get moves payload of one message into buf. It returns false if there is none.
func (b *inbox) get(buf []byte) (n int, flags policy.Flags, ok bool) {
	removed := 0
	for i := range b.pieces {
		p := &b.pieces[i]
		if i > 0 && p.flags&policy.FlagSOM != 0 {
			break
		}
		flags |= p.flags & policy.FlagSOM
		m := copy(buf[n:], b.data[n:n+p.n])
		n += m
		p.n -= m
		p.flags &^= policy.FlagSOM
		if p.n > 0 {
			break
		}
		removed++
		flags |= p.flags
		if flags&policy.FlagEOM != 0 || n == len(buf) {
			break
		}
	}
	if n == 0 && removed == 0 {
		return 0, 0, false
	}
	b.inside = flags&policy.FlagEOM == 0
	b.pieces = b.pieces[removed:]
	b.data = b.data[n:]
	b.size -= n
	if len(b.pieces) == 0 {
		b.data, b.pieces = nil, nil
		if b.large != nil {
			largeBuffers.Put(b.large)
			b.large = nil
		}
	}
	b.signal()
	return n, flags, true
}

// signal wakes the reader.
func (b *inbox) signal() {
	select {
	case b.room <- struct{}{}: // a nil channel is never ready
	default:
	}
}

// resetLocked drops the messages that the client will resend after the end of a
// connection: all, or only those that the stream or the client is within. The rest
// of them may still arrive.
func (b *inbox) resetLocked(all bool) {
	if b.inside && !all {
		n := slices.IndexFunc(b.pieces, func(p piece) bool { return p.flags&policy.FlagSOM != 0 })
		if n < 0 {
			n = len(b.pieces)
		}
		b.cut(n)
	}
	b.inside, b.broken = false, false
	if b.open {
		b.discard = true
		end := len(b.pieces)
		for end > 0 && b.pieces[end-1].flags&policy.FlagEOM == 0 {
			end--
			b.size -= b.pieces[end].n
		}
		b.pieces, b.data = b.pieces[:end], b.data[:b.size]
	}
	if all {
		b.cut(len(b.pieces))
	}
	b.signal()
}

// cut drops the first n pieces.
func (b *inbox) cut(n int) {
	for _, p := range b.pieces[:n] {
		b.data = b.data[p.n:]
		b.size -= p.n
	}
	b.pieces = b.pieces[n:]
}

// dropLocked drops everything.
func (b *inbox) dropLocked() {
	b.data, b.pieces, b.size, b.inside, b.open, b.broken = nil, nil, 0, false, false, false
	b.signal()
}

// hangupCheck is the interval at which a link that is not being read is checked for
// its end.
const hangupCheck = time.Second

var errHangUp = errors.New("the client has closed the link without reading it to the end")

// hungUp reports whether the client has ended the link.
func (l *link) hungUp() bool {
	if c, ok := l.conn.(*sspcmux.Channel); ok {
		return c.Ended()
	}
	return hungUp(l.conn)
}

// awaitRoom waits until a payload of n bytes fits into the queue. An empty queue
// accepts any size.
func (l *link) awaitRoom(n int) error {
	return l.await(time.Time{}, func() bool {
		if len(l.in.pieces) == 0 || l.in.cost()+n <= l.in.limit && !l.budget.full() {
			return true
		}
		if l.stream != nil {
			l.stream.RequestTx() // take may have left it to the frame that waits
		}
		return false
	})
}

// await waits until time at has come and ready returns true, or the link ends.
// ready is called with mu held.
func (l *link) await(at time.Time, ready func() bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		wait := hangupCheck
		if left := time.Until(at); left > 0 {
			wait = min(wait, left)
		} else if ready() {
			return nil
		}
		if l.in.room == nil {
			l.in.room = make(chan struct{}, 1)
		}
		room := l.in.room
		l.mu.Unlock()
		gone := false
		select {
		case <-room:
		case <-time.After(wait):
			gone = l.hungUp()
		}
		l.mu.Lock()
		if gone {
			return errHangUp
		}
	}
	return l.err
}
