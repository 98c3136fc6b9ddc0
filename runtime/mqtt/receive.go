package mqtt

import (
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// The limits of payload that waits for a stream, in bytes: at maxQueue the
// connection stops reading, at maxEarly a stream that is not yet connected is
// expelled. Each piece counts pieceCost in addition to its payload.
const (
	maxQueue  = 64 << 10
	maxEarly  = 1 << 20
	pieceCost = 64
)

// An inbox is the receiving half of a stream.
type inbox struct {
	// Guarded by the mu of the connection.
	queue     queue
	busy      bool   // the stream is delivering what was in queue
	lastTopic string // cache of topicLocked

	// Used by the stream's goroutine only.
	batch queue  // what was in queue
	next  int    // the piece of batch to deliver next
	start int    // its first byte
	held  bool   // batch has more, but the program has paused the stream
	bytes int64  // of payload, passed to the program
	topic string // of the message that is being delivered
}

// A queue holds pieces of received payload.
type queue struct {
	pieces []piece
	buf    []byte
}

type piece struct {
	end   int // in buf
	flags policy.Flags
	topic string // set on the first piece of a message, if the stream needs it
	m     *inMsg // set on the last piece of a message, if it has to be acknowledged
}

func (q *queue) size() int { return len(q.buf) + pieceCost*len(q.pieces) }

func (q *queue) full() bool { return q.size() >= maxQueue }

func (q *queue) add(b []byte, flags policy.Flags, topic string, m *inMsg) {
	q.buf = append(q.buf, b...)
	if flags&policy.FlagEOM == 0 {
		m = nil
	}
	q.pieces = append(q.pieces, piece{len(q.buf), flags, topic, m})
}

// reset empties the queue. It frees a large buffer unless it is needed at once.
func (q *queue) reset(needed bool) {
	clear(q.pieces)
	q.pieces, q.buf = q.pieces[:0], q.buf[:0]
	if !needed && cap(q.buf) > 4<<10 || cap(q.buf) > 4*maxQueue {
		*q = queue{}
	}
}

// wantsLocked reports whether the stream receives messages on the topic.
func (st *stream) wantsLocked(topic []byte) bool {
	if st.filter != "" && matches(st.filter, topic) {
		return true
	}
	for _, f := range st.shadow.filters {
		if string(topic) == f {
			return true
		}
	}
	return false
}

// topicLocked returns the topic to store with a piece. It is "" unless the piece
// is the first of a message and the stream needs the topic.
func (st *stream) topicLocked(topic []byte, flags policy.Flags) string {
	if flags&policy.FlagSOM == 0 || st.n.topicItem < 0 && st.shadow.filters == nil {
		return ""
	}
	if st.in.lastTopic != string(topic) {
		st.in.lastTopic = string(topic)
	}
	return st.in.lastTopic
}

// dropLocked drops the messages that wait for the stream. With handOver, and after the
// end of the connection, they stay unacknowledged, so that the server resends them on
// the next connection; found reports whether there are any.
func (st *stream) dropLocked(handOver bool) (found bool) {
	st.gone = true
	for _, p := range st.in.queue.pieces {
		switch {
		case !handOver && st.c.err == nil:
			st.c.consumeLocked(p.m)
		case p.m != nil:
			found = true
			if p.m.qos == 2 && !p.m.taken {
				st.c.sess.received.remove(p.m.id)
			}
		}
	}
	st.in.queue = queue{}
	st.c.room.Broadcast()
	return found
}

// deliver reports received messages and acknowledgements to the program until none
// is left or the program has paused the stream. Then it returns the error that has
// ended the stream or, if all messages are delivered, the connection.
func (st *stream) deliver() error {
	c, in := st.c, &st.in
	for {
		c.mu.Lock()
		if !in.held {
			st.progress++
			in.busy = len(in.queue.pieces) > 0
			if in.busy {
				in.batch, in.queue = in.queue, in.batch
				c.room.Broadcast()
			}
		}
		acks, nack := st.takeOutcomesLocked()
		st.out.mayAsk = st.out.current != nil || st.n.st.MQTT.QoS == 0 ||
			c.err != nil || len(st.out.inflight) < window && c.sess.bytes < maxKept
		err, dead := st.err, c.err
		c.mu.Unlock()
		switch {
		case in.busy && err == nil:
			if err := st.deliverBatch(); err != nil {
				return err
			}
		case acks == 0 && err == nil:
			return dead
		case acks == 0:
			return err
		}
		idle := in.held && acks == 0
		for ; acks > 0; acks-- {
			if err := st.l.Ack(!nack || acks > 1); err != nil {
				return err
			}
		}
		if idle {
			if dead != nil && !st.out.failed {
				st.out.failed = true
				st.l.FailTx(dead)
			}
			return nil
		}
	}
}

// deliverBatch passes the pieces of the batch to the program, until it pauses the
// stream.
func (st *stream) deliverBatch() error {
	c, in := st.c, &st.in
	in.held = false
	for in.next < len(in.batch.pieces) {
		p := &in.batch.pieces[in.next]
		delivered, err := st.rx(p, in.batch.buf[in.start:p.end])
		if err == nil && !delivered {
			in.held = true
			return nil
		}
		consumed := err == nil || st.l.Delivered() > in.bytes
		c.mu.Lock()
		st.progress++
		if consumed {
			if p.m != nil {
				p.m.taken = true
			}
			c.consumeLocked(p.m)
			in.next++
		}
		gone, needed := st.gone, len(in.queue.pieces) > 0
		c.mu.Unlock()
		if err != nil || gone {
			return err // leave puts the rest back
		}
		in.bytes += int64(p.end - in.start)
		in.start = p.end
		if in.next == len(in.batch.pieces) {
			in.next, in.start = 0, 0
			in.batch.reset(needed)
		}
	}
	return nil
}

// putBackLocked leaves undelivered pieces to dropLocked, which ignores their
// payload.
func (st *stream) putBackLocked() {
	pieces := st.in.batch.pieces[st.in.next:]
	st.in.batch, st.in.next, st.in.held = queue{}, 0, false
	if st.gone { // dropLocked has run
		for _, p := range pieces {
			st.c.consumeLocked(p.m)
		}
		return
	}
	st.in.queue.pieces = append(pieces, st.in.queue.pieces...)
}

// rx passes a piece to the program. It returns false if the program has paused the
// stream.
func (st *stream) rx(p *piece, b []byte) (delivered bool, err error) {
	l := st.l
	item := -1
	if st.shadow.topic != "" {
		item = st.n.subscribeItem
	}
	if p.topic != "" {
		st.in.topic = p.topic
		if st.n.topicItem >= 0 {
			l.Receive(st.n.topicItem, p.topic)
		}
		if item >= 0 {
			l.Receive(item, p.topic)
		}
	}
	if delivered, err := l.TryRx(b, p.flags); !delivered || err != nil {
		return delivered, err
	}
	if p.flags&policy.FlagEOM != 0 && st.shadow.topic != "" {
		if item >= 0 {
			own, _ := l.Metadata(item)
			l.Receive(item, own)
		}
		if st.shadow.answeredBy(st.in.topic) {
			st.endShadow()
		}
	}
	return true, nil
}
