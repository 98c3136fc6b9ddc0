package mqtt

import (
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// The payload that may wait for a stream, in bytes: maxQueue before the connection
// stops reading, maxEarly before a stream that is not yet connected is expelled.
// Each piece counts pieceCost beside its payload.
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
	bytes int64  // of payload, passed to the program
	topic string // of the message that is being delivered
}

// A queue is pieces of received payload.
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

// reset empties the queue. It frees the memory if that is much and not needed at
// once.
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

// dropLocked gives up the messages that wait for the stream. With handOver they
// stay unacknowledged, so that the server sends them again on the next connection;
// the result reports whether there are any.
func (st *stream) dropLocked(handOver bool) (any bool) {
	st.gone = true
	for _, p := range st.in.queue.pieces {
		switch {
		case !handOver:
			st.c.consumeLocked(p.m)
		case p.m != nil:
			any = true
			if p.m.qos == 2 {
				delete(st.c.sess.received, p.m.id)
			}
		}
	}
	st.in.queue = queue{}
	st.c.room.Broadcast()
	return any
}

// deliver reports received messages and acknowledgements to the program until
// there are no more. It then returns the error that has ended the connection, if
// any.
func (st *stream) deliver() error {
	c := st.c
	for {
		c.mu.Lock()
		st.progress++
		in := &st.in
		in.busy = len(in.queue.pieces) > 0
		if in.busy {
			in.batch, in.queue = in.queue, in.batch
			c.room.Broadcast()
		}
		acks, nack := st.takeOutcomesLocked()
		st.out.mayAsk = st.out.current != nil || st.n.st.MQTT.QoS == 0 ||
			c.err != nil || len(st.out.inflight) < window && c.sess.bytes < maxKept
		err := st.errLocked()
		c.mu.Unlock()
		if !in.busy && acks == 0 {
			return err
		}
		if err := st.deliverBatch(); err != nil {
			return err
		}
		for ; acks > 0; acks-- {
			if err := st.l.Ack(!nack || acks > 1); err != nil {
				return err
			}
		}
	}
}

// deliverBatch passes the pieces of the batch to the program.
func (st *stream) deliverBatch() error {
	c, batch, start := st.c, &st.in.batch, 0
	for i := range batch.pieces {
		p := &batch.pieces[i]
		err := st.rx(p, batch.buf[start:p.end])
		consumed := err == nil || st.l.Delivered() > st.in.bytes
		rest := batch.pieces[i:]
		c.mu.Lock()
		st.progress++
		if consumed {
			c.consumeLocked(p.m)
			rest = rest[1:]
		}
		if err != nil || st.gone {
			*batch = queue{}
			st.putBackLocked(rest)
			c.mu.Unlock()
			return err
		}
		needed := len(st.in.queue.pieces) > 0
		c.mu.Unlock()
		st.in.bytes += int64(p.end - start)
		start = p.end
		if len(rest) == 0 {
			batch.reset(needed)
			return nil
		}
	}
	return nil
}

// putBackLocked leaves pieces that are not delivered to dropLocked, which ignores
// their payload.
func (st *stream) putBackLocked(pieces []piece) {
	if st.gone { // dropLocked has run
		for _, p := range pieces {
			st.c.consumeLocked(p.m)
		}
		return
	}
	st.in.queue.pieces = append(pieces, st.in.queue.pieces...)
}

// rx passes a piece to the program.
func (st *stream) rx(p *piece, b []byte) error {
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
	if err := l.Rx(b, p.flags); err != nil {
		return err
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
	return nil
}
