package mqtt

import (
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// maxPiece is the maximum size in bytes of a piece of received payload.
const maxPiece = 16 << 10

// A reader holds memory that the reading goroutine reuses.
type reader struct {
	topic   []byte
	to      []*stream // streams that receive the message
	control [maxControl]byte
}

// An inMsg is a received message that must be acknowledged after every receiver has
// consumed it.
type inMsg struct {
	id      uint16
	qos     byte
	pending int  // receivers that have not consumed it, plus 1 until the reader has queued it
	taken   bool // a program has it
}

// read reads packets until the connection ends.
func (c *conn) read() error {
	for {
		c.w.waitRoom()
		h, err := readHeader(c.br)
		if err != nil {
			return err
		}
		if h.kind == typePublish {
			err = c.receive(h)
		} else {
			var b []byte
			if b, err = readControl(c.br, h, &c.reader.control); err == nil {
				err = c.control(h.kind, b)
			}
		}
		if err != nil {
			return err
		}
	}
}

// receive reads a message and queues it for its receivers.
func (c *conn) receive(h header) error {
	r := &c.reader
	p, err := readPublish(c.br, h, r.topic[:0])
	r.topic = p.topic[:0]
	if err != nil {
		return err
	}
	var m *inMsg
	if p.qos > 0 {
		m = &inMsg{id: p.id, qos: p.qos}
	}
	r.to = r.to[:0]
	c.mu.Lock()
	if c.err == nil && (p.qos < 2 || !c.sess.received.duplicate(p.id, p.dup)) {
		for _, st := range c.streams {
			if st.wantsLocked(p.topic) {
				r.to = append(r.to, st)
			}
		}
	}
	c.mu.Unlock()
	flags := policy.FlagSOM
	for left := p.payload; ; flags = 0 {
		n := min(left, maxPiece)
		b, err := c.br.Peek(n)
		if err != nil {
			return unexpected(err)
		}
		if left -= n; left == 0 {
			flags |= policy.FlagEOM
		}
		if err := c.enqueue(b, flags, p.topic, m); err != nil {
			return err
		}
		c.br.Discard(n)
		if left == 0 {
			return nil
		}
	}
}

// enqueue waits until every receiver of the message has room, and queues a piece.
func (c *conn) enqueue(b []byte, flags policy.Flags, topic []byte, m *inMsg) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, st := range c.reader.to {
		for st.open && st.in.queue.full() && !st.gone && c.err == nil {
			c.liveness.blockLocked()
			c.room.Wait()
		}
		if !st.open && !st.gone && st.in.queue.size() > maxEarly {
			st.expelLocked(ErrSlow)
		}
	}
	c.liveness.blocked = false
	if c.err != nil {
		return c.err
	}
	last := flags&policy.FlagEOM != 0 && m != nil
	if last && c.retired && !slices.ContainsFunc(c.reader.to, func(st *stream) bool { return !st.gone }) {
		c.kept = true
		return nil
	}
	if last {
		if len(c.acks) == maxString { // [MQTT-2.3.1-4]
			return malformed("more unacknowledged messages than there are packet identifiers")
		}
		m.pending = 1
		c.acks = append(c.acks, m)
		if m.qos == 2 {
			c.sess.received.add(m.id)
		}
	}
	for _, st := range c.reader.to {
		if st.gone {
			continue
		}
		if last {
			m.pending++
		}
		st.in.queue.add(b, flags, st.topicLocked(topic, flags), m)
		st.wakeUp()
	}
	if last {
		c.consumeLocked(m)
	}
	return nil
}

// consumeLocked records that a receiver has consumed a message. The message is
// acknowledged when all have, in the order of arrival [MQTT-4.6.0-2]. m may be nil.
func (c *conn) consumeLocked(m *inMsg) {
	if m == nil {
		return
	}
	m.pending--
	n := 0
	for n < len(c.acks) && c.acks[n].pending == 0 {
		m, kind := c.acks[n], typePuback
		if m.qos == 2 {
			kind = typePubrec
		}
		c.postAck(kind, m.id)
		n++
	}
	c.acks = slices.Delete(c.acks, 0, n)
}

func (c *conn) postAck(kind packetType, id uint16) {
	c.w.post(func(b []byte) []byte { return appendAck(b, kind, id) })
}

// control handles a packet other than a PUBLISH.
func (c *conn) control(kind packetType, b []byte) error {
	switch kind {
	case typeConnack: // [MQTT-3.2.0-1]
		return malformed("a second CONNACK")
	case typePingresp:
		if len(b) != 0 {
			return malformed("a PINGRESP of %d bytes", len(b))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.liveness.pings == 0 {
			return c.unaskedLocked(kind)
		}
		c.liveness.pings--
		c.liveness.validity.Confirm()
		return nil
	case typeSuback:
		id, codes, err := parseSuback(b)
		if err != nil {
			return err
		}
		return c.subscribed(id, codes)
	}
	id, err := parseAck(b)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if kind == typePubrel {
		if c.err != nil {
			return c.err
		}
		known := c.sess.received.remove(id)
		c.postAck(typePubcomp, id)
		if !known { // repeated, or of a message that this process does not know
			return c.unaskedLocked(kind)
		}
		return nil
	}
	c.liveness.validity.Confirm()
	if c.err != nil { // another connection may have the session now
		return c.err
	}
	return c.answerLocked(kind, id)
}

// answerLocked processes an answer to a packet of the client.
func (c *conn) answerLocked(kind packetType, id uint16) error {
	m := c.sess.out[id]
	switch {
	case m == nil && kind == typePubrec:
		// The client has given up the message or does not know it. PUBREL makes the
		// server forget it too (section 4.3.3).
		c.postAck(typePubrel, id)
		return c.unaskedLocked(kind)
	case m == nil: // late or repeated
		return c.unaskedLocked(kind)
	case kind == typeUnsuback && m.kind == typeUnsubscribe:
		c.sess.free(m)
		close(m.answer)
	case m.kind != typePublish:
		return malformed("packet type %d in answer to packet type %d", kind, m.kind)
	case kind == typePuback && m.qos == 1:
		c.settleLocked(m, false)
		c.sess.free(m)
	case kind == typePubrec && m.qos == 2:
		if m.released { // repeated
			c.postAck(typePubrel, id)
			return c.unaskedLocked(kind)
		}
		c.sess.forget(m)
		m.released, m.tries, m.due = true, 0, time.Now().Add(c.hub.t.resendAfter)
		c.armResendLocked()
		c.postAck(typePubrel, id)
	case kind == typePubcomp && m.qos == 2:
		if !m.released {
			return c.unaskedLocked(kind)
		}
		c.settleLocked(m, false) // not at PUBREC: a server may wait for PUBREL, and drop the message without it
		c.sess.free(m)
		c.checkReleasedLocked()
	default:
		return malformed("packet type %d in answer to a PUBLISH with QoS %d", kind, m.qos)
	}
	c.unasked = 0
	return nil
}

// maxUnasked is the maximum number of successive packets that answer nothing. A
// correct server sends some: late and repeated acknowledgements.
const maxUnasked = 1000

// unaskedLocked counts a packet that answers nothing.
func (c *conn) unaskedLocked(kind packetType) error {
	if c.unasked++; c.unasked > maxUnasked {
		return malformed("%d packets that answer nothing, the last of type %d", c.unasked, kind)
	}
	return nil
}
