package mqtt

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

const (
	// window is the maximum number of unacknowledged messages of a stream at which
	// the program is asked for another one.
	window = 20

	// Messages up to maxHeld bytes are assembled before the first byte is sent, so
	// that a slow program does not block other streams in the middle of a message.
	// Messages of unknown length must be assembled; maxUnknown limits them.
	maxHeld    = 64 << 10
	maxUnknown = 1 << 20
)

// buffers holds buffers for the Tx callbacks of programs.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// An outbox is the sending half of a stream.
type outbox struct {
	inflight []*outMsg // messages whose outcome the program awaits, in order; guarded by the mu of the connection

	// Used by the stream's goroutine only.
	wantsTx     bool    // the program wants to send
	mayAsk      bool    // Tx may request a message
	total       uint64  // length of the next message; 0 means unknown
	part        []byte  // of the message that the program has begun
	current     *outMsg // the message that is being written in pieces, or nil
	left        int     // bytes of current that have not been written
	backlog     int     // messages for push to write
	backlogQoS0 int     // of these, the messages that push acknowledges
	msgQoS0     outMsg  // the latest message with QoS 0
	failed      bool    // FailTx has been called

	packet       publishPacket
	appendPacket func([]byte) []byte // packet.append; made once, to save an allocation a message
}

// A publishPacket is a PUBLISH to be appended to the writer's buffer.
type publishPacket struct {
	m       *outMsg
	payload []byte // of the message, or the first bytes of it
	length  int    // of the whole payload
}

func (p *publishPacket) append(b []byte) []byte {
	b = appendPublish(b, p.m.topic, p.m.id, p.m.qos, false, p.m.retain, p.length)
	return append(b, p.payload...)
}

// takeOutcomesLocked removes the messages whose outcome is known from inflight, up
// to the first failed one. nack reports whether the last removed one failed.
func (st *stream) takeOutcomesLocked() (n int, nack bool) {
	o := &st.out
	for len(o.inflight) > 0 && o.inflight[0].outcome.known && !nack {
		nack = o.inflight[0].outcome.failed
		o.inflight = o.inflight[1:]
		n++
	}
	return n, nack
}

// mayTransmit reports whether to ask the program for payload.
func (st *stream) mayTransmit() bool {
	return st.out.wantsTx && st.out.mayAsk && st.out.backlog < window && !st.out.failed
}

// transmit asks the program for a piece, and sends a message if it is complete or
// too long to be assembled.
func (st *stream) transmit() error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	o, b := &st.out, *buf
	if o.current != nil && o.left < len(b) {
		b = b[:o.left]
	}
	piece, err := st.l.Tx(b)
	if err != nil {
		return err
	}
	n := piece.N
	if piece.Length > 0 && o.current == nil && (o.total == 0 || len(o.part) == 0) {
		o.total = piece.Length
	}
	end := piece.Flags&policy.FlagEOM != 0
	switch {
	case n == 0 && !end:
		o.wantsTx = false
		return nil
	case o.current != nil:
		return st.continueMessage(b[:n], end)
	case end && len(o.part) == 0:
		return st.message(b[:n])
	}
	o.part = append(o.part, b[:n]...)
	size := uint64(len(o.part))
	switch {
	case end:
		return st.message(o.takePart())
	case o.total > 0 && size > o.total, o.total == 0 && size > maxUnknown:
		return ErrLength
	case o.total > maxHeld:
		return st.beginMessage(o.takePart())
	}
	return nil
}

func (o *outbox) takePart() []byte {
	part := o.part
	o.part = nil
	return part
}

// newMessage returns a message on the policy's topic. It returns nil without an
// error if the message cannot be published: the program then receives
// QOS_NACK_REMOTE.
func (st *stream) newMessage(length uint64) (*outMsg, error) {
	m := st.n.st.MQTT
	topic, err := st.n.expand(st.l, "mqtt_topic", st.n.topic, invalidTopic[string])
	if err == nil && (length > maxRemaining || publishLength(topic, m.QoS, int(length)) > maxRemaining) {
		err = errors.New("sspolicy: the message is longer than MQTT allows")
	}
	if err != nil {
		st.n.setup.Logger().Warn("sspolicy: a message was not published", "streamtype", st.n.st.Name, "err", err)
		return nil, nil
	}
	if m.AWSIoT && isShadow(topic) {
		if ok, err := st.beginShadow(topic); !ok || err != nil {
			return nil, err
		}
	}
	if m.QoS == 0 { // not needed after it has been written
		st.out.msgQoS0 = outMsg{kind: typePublish, topic: topic, retain: m.Retain}
		return &st.out.msgQoS0, nil
	}
	return &outMsg{kind: typePublish, topic: topic, qos: m.QoS, retain: m.Retain, st: st}, nil
}

// message publishes a complete message.
func (st *stream) message(payload []byte) error {
	st.out.total = 0
	st.out.wantsTx = false
	m, err := st.newMessage(uint64(len(payload)))
	switch {
	case err != nil:
		return err
	case m == nil:
		return st.refuse()
	}
	return st.sendError(st.publish(m, payload))
}

// refuse reports QOS_NACK_REMOTE for a message that cannot be published, after the
// outcomes of earlier messages, so that the program can count.
func (st *stream) refuse() error {
	if st.n.st.MQTT.QoS == 0 {
		if err := st.push(); err != nil {
			return err
		}
		return st.l.Ack(false)
	}
	m := &outMsg{outcome: outcome{known: true, failed: true}}
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.out.inflight = append(st.out.inflight, m)
	st.wakeUp()
	return nil
}

// publish sends a complete message. When the stream is open it only queues the
// message for push, which may write several at once.
func (st *stream) publish(m *outMsg, payload []byte) error {
	send := st.c.w.send
	if st.open {
		send = st.c.w.queue
	}
	if m.qos > 0 {
		m.payload = slices.Clone(payload)
	}
	if err := st.start(m, payload, len(payload), send); err != nil {
		return err
	}
	if st.open {
		st.out.backlog++
		if m.qos == 0 {
			st.out.backlogQoS0++
		}
	}
	st.complete(m)
	return nil
}

// start passes a PUBLISH with the first bytes of its payload to a method of the
// writer.
func (st *stream) start(m *outMsg, payload []byte, length int, send func(context.Context, func([]byte) []byte) error) error {
	if m.qos > 0 {
		if err := st.register(m); err != nil {
			return err
		}
	}
	st.out.packet = publishPacket{m, payload, length}
	err := send(st.ctx, st.out.appendPacket)
	st.out.packet = publishPacket{}
	if err != nil && st.open && m.qos > 0 {
		st.unregister(m)
	}
	return err
}

// register assigns an identifier to a message, and adds it to those in flight.
func (st *stream) register(m *outMsg) error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if err := st.c.useLocked(m); err != nil {
		return err
	}
	if st.open {
		st.out.inflight = append(st.out.inflight, m)
	}
	return nil
}

// unregister undoes register, for a message of which nothing has been written.
func (st *stream) unregister(m *outMsg) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.sess.free(m)
	}
	st.out.inflight = slices.DeleteFunc(st.out.inflight, func(o *outMsg) bool { return o == m })
}

// complete starts the wait for the acknowledgement of a message that has been
// passed to the writer as a whole.
func (st *stream) complete(m *outMsg) {
	if m.qos == 0 {
		return
	}
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		m.complete, m.due = true, time.Now().Add(c.hub.t.resendAfter)
		c.armResendLocked()
	}
}

// push writes what publish has queued, and acknowledges messages with QoS 0.
func (st *stream) push() error {
	n := st.out.backlogQoS0
	st.out.backlog, st.out.backlogQoS0 = 0, 0
	if err := st.c.w.push(st.ctx); err != nil {
		return st.sendError(err)
	}
	for range n {
		if err := st.l.Ack(true); err != nil {
			return err
		}
	}
	return nil
}

// sendError returns the error that ends the stream after an error of sending. It
// returns nil if the connection has ended: deliver then returns that error, after
// all that has been received.
func (st *stream) sendError(err error) error {
	if err == nil {
		return nil
	}
	if st.ctx.Err() != nil {
		return context.Cause(st.ctx)
	}
	select {
	case <-st.c.dead:
		st.out.wantsTx = false
		return nil
	default:
		return err
	}
}

// beginMessage sends the first part of a message that is too long to be assembled.
func (st *stream) beginMessage(part []byte) error {
	if err := st.push(); err != nil { // so that earlier messages are acknowledged first
		return err
	}
	total := st.out.total
	st.out.total = 0
	m, err := st.newMessage(total)
	switch {
	case err != nil:
		return err
	case m == nil:
		if err := st.l.Ack(false); err != nil {
			return err
		}
		return ErrTopic // the rest of the message would look like another one
	}
	c := st.c
	if err := st.start(m, part, int(total), c.w.begin); err != nil {
		return st.sendError(err)
	}
	c.mu.Lock()
	c.uploader = st
	c.liveness.advanceLocked()
	c.mu.Unlock()
	st.out.current, st.out.left = m, int(total)-len(part)
	if m.qos > 0 {
		st.out.part = part
	}
	return nil
}

// continueMessage sends another part of the current message.
func (st *stream) continueMessage(part []byte, end bool) error {
	c, o := st.c, &st.out
	if err := c.w.piece(st.ctx, part); err != nil {
		return st.sendError(err)
	}
	c.mu.Lock()
	c.liveness.advanceLocked()
	c.mu.Unlock()
	m := o.current
	if m.qos > 0 {
		o.part = append(o.part, part...)
	}
	if o.left -= len(part); o.left > 0 {
		if end {
			return ErrLength
		}
		return nil
	}
	o.current = nil
	o.wantsTx = false
	payload := o.takePart()
	c.mu.Lock()
	c.uploader = nil
	if c.err == nil && c.sess.out[m.id] == m {
		m.payload = payload
		c.sess.bytes += len(payload)
	}
	c.mu.Unlock()
	st.complete(m)
	c.w.end()
	if m.qos == 0 {
		return st.l.Ack(true)
	}
	return nil
}

// sendBirth publishes the birth message, unless another stream of the connection
// has done or is doing so.
func (st *stream) sendBirth() error {
	c := st.c
	if st.birth.topic == "" {
		return nil
	}
	c.mu.Lock()
	if c.births[st.birth] {
		c.mu.Unlock()
		return nil
	}
	c.births[st.birth] = true
	c.mu.Unlock()
	m := &outMsg{kind: typePublish, topic: st.birth.topic, qos: st.birth.qos, retain: st.birth.retain, st: st}
	err := st.publish(m, []byte(st.birth.message))
	if err == nil && m.qos > 0 {
		err = st.await(func() bool { return m.outcome.known })
	}
	if err == nil && m.outcome.failed {
		err = ErrBirth
	}
	if err != nil {
		c.mu.Lock()
		delete(c.births, st.birth)
		c.mu.Unlock()
	}
	return err
}
