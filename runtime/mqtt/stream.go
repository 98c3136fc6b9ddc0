package mqtt

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// window is how many messages of a stream may wait for their
	// acknowledgement before the program is asked for another one.
	window = 20

	// A message up to maxHeld is put together before the first byte of it is
	// sent, so that a slow program does not keep others waiting in the middle
	// of it; one whose length is not known has to be.
	maxHeld    = 64 << 10
	maxUnknown = 1 << 20

	// maxQueue is how much may wait for a stream before no more is read, and
	// maxEarly how much before it is connected, in bytes; what a piece costs
	// beside its payload counts too.
	maxQueue  = 64 << 10
	maxEarly  = 1 << 20
	pieceCost = 64

	// shadowLimit is how long the answer of a shadow is waited for, as in lws.
	shadowLimit = 60 * time.Second
	// shadowReady is how long the SUBACK for it is.
	shadowReady = (maxResends + 1) * resendAfter
)

// buffers holds what programs put payload into.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// errUnfinished: a stream has left in the middle of a message.
var errUnfinished = errors.New("sspolicy: a message was not finished")

// errKept: the last stream has left messages to the next connection.
var errKept = errors.New("sspolicy: messages wait at the server for another connection")

// A stream is an attempt of a stream, and its part of a connection.
type stream struct {
	ctx    context.Context
	n      *connector
	l      transport.Link
	c      *conn
	filter string // "": none
	birth  will
	wake   chan struct{}

	// Guarded by the mu of the connection.
	sub      *subscription
	shadow   []string // filters for the answers of a shadow
	open     bool     // CONNECTED has been or is being delivered
	gone     bool     // it has left, or been expelled
	err      error    // why it was expelled
	queue    queue
	inflight []*outMsg // in order
	busy     bool      // it is delivering what was in queue
	progress uint64    // of what it does
	seen     uint64    // progress at the time before
	name     string    // the topic of the latest message, to share it with the next

	// Of the goroutine of Run.
	taken       queue
	told        int64  // bytes of payload, to the program
	topic       string // of the message that is being delivered
	wantTx      bool
	canTx       bool
	total       uint64 // of the message that is to be sent, if known
	part        []byte // of it
	cur         *outMsg
	left        int  // of cur, to be sent
	ended       bool // the latest message ended by its length, without FlagEOM
	shadowTopic string
	shadowEnd   *time.Timer

	unwritten int // messages for the writer to push
	unacked   int // those of them with QoS 0

	fleeting outMsg // the message, if it has QoS 0

	// What add appends.
	packet struct {
		m       *outMsg
		payload []byte
		length  int
	}
	add func([]byte) []byte
}

func newStream(ctx context.Context, n *connector, l transport.Link) *stream {
	st := &stream{ctx: ctx, n: n, l: l, wake: make(chan struct{}, 1), told: l.Delivered()}
	st.birth.qos, st.birth.retain = n.st.MQTT.BirthQoS, n.st.MQTT.BirthRetain
	st.add = func(b []byte) []byte {
		p := &st.packet
		b = appendPublish(b, p.m.topic, p.m.id, p.m.qos, false, p.m.retain, p.length)
		return append(b, p.payload...)
	}
	return st
}

// A queue is pieces of received payload.
type queue struct {
	pieces []piece
	buf    []byte
}

type piece struct {
	end   int // in buf
	flags policy.Flags
	topic string // of the first piece of a message, if somebody wants to know
	m     *inMsg // of the last piece
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

// reset empties the queue, and keeps its memory if that is little or will be
// used at once.
func (q *queue) reset(used bool) {
	clear(q.pieces)
	q.pieces, q.buf = q.pieces[:0], q.buf[:0]
	if !used && cap(q.buf) > 4<<10 || cap(q.buf) > 4*maxQueue {
		*q = queue{}
	}
}

// wakeUp makes Run look.
func (st *stream) wakeUp() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// wants reports whether a message on the topic is for the stream. The mu of the
// connection is held, here and in what follows up to drop.
func (st *stream) wants(topic []byte) bool {
	if st.filter != "" && matches(st.filter, topic) {
		return true
	}
	for _, f := range st.shadow {
		if string(topic) == f {
			return true
		}
	}
	return false
}

// names returns the topic if it is a first piece and somebody wants to know.
func (st *stream) names(topic []byte, flags policy.Flags) string {
	if flags&policy.FlagSOM == 0 || st.n.topicItem < 0 && st.shadow == nil {
		return ""
	}
	if st.name != string(topic) {
		st.name = string(topic)
	}
	return st.name
}

// expel makes the stream leave.
func (st *stream) expel(err error) {
	st.err = err
	st.drop(false)
	st.wakeUp()
}

// drop gives up what waits for the stream, and makes others not wait for it. With
// keep the server keeps it for the next connection, since it is not acknowledged;
// kept says that there is such.
func (st *stream) drop(keep bool) (kept bool) {
	st.gone = true
	for _, p := range st.queue.pieces {
		switch {
		case !keep:
			st.c.had(p.m)
		case p.m != nil:
			kept = true
			if p.m.qos == 2 {
				delete(st.c.sess.received, p.m.id)
			}
		}
	}
	st.queue = queue{}
	st.c.room.Broadcast()
	return kept
}

// run is the life of the stream on its connection.
func (st *stream) run() error {
	if err := st.subscribe(); err != nil {
		return err
	}
	if err := st.sendBirth(); err != nil {
		return err
	}
	st.c.mu.Lock()
	st.open = true
	st.c.mu.Unlock()
	if err := st.l.Connected(); err != nil {
		return err
	}
	var ready <-chan struct{}
	if _, hasTx := st.l.Outgoing(); hasTx && st.n.topic != nil {
		ready, st.wantTx = st.l.Ready(), true
	}
	defer st.endShadow()
	for {
		if err := st.deliver(); err != nil {
			return err
		}
		if st.wantTx && st.canTx && st.unwritten < window {
			if err := st.transmit(); err != nil {
				return err
			}
			if st.wantTx {
				continue
			}
		}
		select {
		case <-ready:
			st.wantTx = true
			if st.canTx && st.unwritten < window {
				continue
			}
		default:
		}
		if st.unwritten > 0 {
			if err := st.push(); err != nil {
				return err
			}
			continue // much may have happened
		}
		var end <-chan time.Time
		if st.shadowEnd != nil {
			end = st.shadowEnd.C
		}
		select {
		case <-st.ctx.Done():
			return context.Cause(st.ctx)
		case <-ready:
			st.wantTx = true
		case <-st.wake:
		case <-st.c.dead:
		case <-end:
			st.endShadow()
		}
	}
}

// await waits until done, which is called with the mu of the connection held,
// says so.
func (st *stream) await(done func() bool) error {
	for {
		st.c.mu.Lock()
		ok, err := done(), st.err
		if err == nil {
			err = st.c.err
		}
		st.c.mu.Unlock()
		if ok {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-st.wake:
		case <-st.c.dead:
		case <-st.ctx.Done():
			return context.Cause(st.ctx)
		}
	}
}

// subscribe sees to it that the server has the filter of the policy.
func (st *stream) subscribe() error {
	if st.filter == "" {
		return nil
	}
	c, qos := st.c, st.n.st.MQTT.QoS
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	s := c.subs[st.filter]
	if s == nil {
		s = &subscription{filter: st.filter}
		if held, ok := c.sess.filters[st.filter]; ok {
			s.asked, s.latest = held+1, &outMsg{done: true}
		}
		c.subs[st.filter] = s
	}
	s.refs++
	st.sub = s
	if s.asked <= qos {
		m := &outMsg{sub: s, qos: qos}
		s.asked, s.latest = qos+1, m
		if err := c.use(m); err != nil {
			c.mu.Unlock()
			return err
		}
		c.w.post(func(b []byte) []byte { return appendSubscribe(b, m.id, qos, s.filter) })
	}
	m := s.latest
	c.mu.Unlock()
	if err := st.await(func() bool { return m.done }); err != nil {
		return err
	}
	if m.failed {
		return ErrSubscribe
	}
	return nil
}

// sendBirth publishes the birth message, if no other stream of the connection
// has or does.
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
	m := &outMsg{topic: st.birth.topic, qos: st.birth.qos, retain: st.birth.retain, st: st}
	err := st.publish(m, []byte(st.birth.message))
	if err == nil && m.qos > 0 {
		err = st.await(func() bool { return m.told.done })
	}
	if err == nil && m.told.failed {
		err = ErrBirth
	}
	if err != nil {
		c.mu.Lock()
		delete(c.births, st.birth)
		c.mu.Unlock()
	}
	return err
}

// publish sends a message as a whole. If the connection has ended there is no
// error: st.deliver returns that, when all that has come is delivered.
func (st *stream) publish(m *outMsg, payload []byte) error {
	c := st.c
	if m.qos > 0 {
		m.payload = append([]byte(nil), payload...)
		c.mu.Lock()
		if err := c.use(m); err != nil {
			c.mu.Unlock()
			return err
		}
		if st.open {
			st.inflight = append(st.inflight, m)
		}
		c.mu.Unlock()
	}
	st.packet.m, st.packet.payload, st.packet.length = m, payload, len(payload)
	send := c.w.send
	if st.open { // st.push writes it, perhaps along with the next
		send = c.w.queue
	}
	err := send(st.ctx, st.add)
	st.packet.m, st.packet.payload = nil, nil
	if err != nil && st.open && m.qos > 0 {
		st.takeBack(m)
	}
	if err == nil && st.open {
		st.unwritten++
		if m.qos == 0 {
			st.unacked++
		}
	}
	if err == nil {
		st.written(m)
	}
	return err
}

// takeBack forgets a message of which nothing has been written.
func (st *stream) takeBack(m *outMsg) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.sess.free(m)
	}
	st.inflight = slices.DeleteFunc(st.inflight, func(o *outMsg) bool { return o == m })
}

// written says that a message has been written, and now waits to be acknowledged.
func (st *stream) written(m *outMsg) {
	if m.qos == 0 {
		return
	}
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		m.written, m.due = true, time.Now().Add(resendAfter)
		c.armResend()
	}
}

// deliver tells the program what has come. It returns the error that the
// connection has ended with when there is no more to tell.
func (st *stream) deliver() error {
	c := st.c
	for {
		c.mu.Lock()
		st.progress++
		st.busy = len(st.queue.pieces) > 0
		if st.busy {
			st.taken, st.queue = st.queue, st.taken
			c.room.Broadcast()
		}
		acks, nack := 0, false
		for len(st.inflight) > 0 && st.inflight[0].told.done && !nack {
			nack = st.inflight[0].told.failed
			st.inflight = st.inflight[1:]
			acks++
		}
		st.canTx = st.cur != nil || st.n.st.MQTT.QoS == 0 ||
			c.err != nil || len(st.inflight) < window && c.sess.bytes < maxKept
		err := st.err
		if err == nil {
			err = c.err
		}
		c.mu.Unlock()
		if !st.busy && acks == 0 {
			return err
		}
		if err := st.deliverTaken(); err != nil {
			return err
		}
		for ; acks > 0; acks-- {
			if err := st.l.Ack(!nack || acks > 1); err != nil {
				return err
			}
		}
	}
}

// deliverTaken delivers the pieces that were in the queue.
func (st *stream) deliverTaken() error {
	start := 0
	for i := range st.taken.pieces {
		p := &st.taken.pieces[i]
		if err := st.rx(p, st.taken.buf[start:p.end]); err != nil {
			st.abandon(i, st.l.Delivered() > st.told)
			return err
		}
		st.told += int64(p.end - start)
		start = p.end
		st.c.mu.Lock()
		st.progress++
		st.c.had(p.m)
		more := len(st.queue.pieces) > 0
		gone := st.gone
		st.c.mu.Unlock()
		if gone {
			st.abandon(i+1, false)
			return nil
		}
		if i == len(st.taken.pieces)-1 {
			st.taken.reset(more)
			return nil
		}
	}
	return nil
}

// abandon leaves the pieces from i on, of which the program may have had the
// first, to drop.
func (st *stream) abandon(i int, had bool) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	left := st.taken.pieces[i:]
	st.taken = queue{}
	if had {
		st.c.had(left[0].m)
		left = left[1:]
	}
	if st.gone {
		for _, p := range left {
			st.c.had(p.m)
		}
		return
	}
	st.queue.pieces = append(left, st.queue.pieces...)
}

// rx delivers a piece.
func (st *stream) rx(p *piece, b []byte) error {
	l := st.l
	item := -1
	if st.shadowTopic != "" {
		item = st.n.subscribedItem
	}
	if p.topic != "" {
		st.topic = p.topic
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
	if p.flags&policy.FlagEOM != 0 && st.shadowTopic != "" {
		if item >= 0 {
			own, _ := l.Metadata(item)
			l.Receive(item, own)
		}
		if st.topic == st.shadowTopic+"/accepted" || st.topic == st.shadowTopic+"/rejected" {
			st.endShadow()
		}
	}
	return nil
}

// transmit asks the program for a piece, and sends what can be sent.
func (st *stream) transmit() error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b := *buf
	if st.cur != nil && st.left < len(b) {
		b = b[:st.left]
	}
	piece, err := st.l.Tx(b)
	if err != nil {
		return err
	}
	n, flags := piece.N, piece.Flags
	if piece.Length > 0 && st.cur == nil && (st.total == 0 || len(st.part) == 0) {
		st.total = piece.Length
	}
	end := flags&policy.FlagEOM != 0
	if n == 0 && end && st.ended && flags&policy.FlagSOM == 0 {
		end = false // of the message before
	}
	st.ended = st.ended && n == 0
	switch {
	case n == 0 && !end:
		st.wantTx = false
		return nil
	case st.cur != nil:
		return st.continueMessage(b[:n], end)
	case end && len(st.part) == 0:
		return st.message(b[:n])
	}
	st.part = append(st.part, b[:n]...)
	have := uint64(len(st.part))
	switch {
	case end || st.total == have:
		st.ended = !end
		part := st.part
		st.part = nil
		return st.message(part)
	case st.total > 0 && have > st.total, st.total == 0 && have > maxUnknown:
		return ErrLength
	case st.total > maxHeld:
		part := st.part
		st.part = nil
		return st.beginMessage(part)
	}
	return nil
}

// newMessage returns a message of the policy's topic; nil if it is none, which
// the program is to be told by a NAK.
func (st *stream) newMessage(length uint64) (*outMsg, error) {
	m := st.n.st.MQTT
	topic, err := st.n.expand(st.l, "mqtt_topic", st.n.topic, wrongTopic[string])
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
	if m.QoS == 0 { // and so is done with when it is sent
		st.fleeting = outMsg{topic: topic, retain: m.Retain}
		return &st.fleeting, nil
	}
	return &outMsg{topic: topic, qos: m.QoS, retain: m.Retain, st: st}, nil
}

// message sends a message that is there as a whole.
func (st *stream) message(payload []byte) error {
	st.total = 0
	st.wantTx = false
	m, err := st.newMessage(uint64(len(payload)))
	if m == nil {
		if err == nil {
			err = st.refuse()
		}
		return err
	}
	if err := st.publish(m, payload); err != nil {
		return st.broken(err)
	}
	return nil
}

// refuse is for a message that can not be published: it is a NAK in its turn, so
// that the program can count.
func (st *stream) refuse() error {
	if st.n.st.MQTT.QoS == 0 {
		if err := st.push(); err != nil {
			return err
		}
		return st.l.Ack(false)
	}
	m := &outMsg{}
	m.told.done, m.told.failed = true, true
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.inflight = append(st.inflight, m)
	st.wakeUp()
	return nil
}

// push writes what has been published. It acknowledges what has QoS 0.
func (st *stream) push() error {
	st.unwritten = 0
	n := st.unacked
	st.unacked = 0
	if err := st.c.w.push(st.ctx); err != nil {
		return st.broken(err)
	}
	for range n {
		if err := st.l.Ack(true); err != nil {
			return err
		}
	}
	return nil
}

// broken is for an error of sending: if the connection has ended that is told
// by deliver, after all that has come.
func (st *stream) broken(err error) error {
	if st.ctx.Err() != nil {
		return context.Cause(st.ctx)
	}
	select {
	case <-st.c.dead:
		st.wantTx = false
		return nil
	default:
		return err
	}
}

// beginMessage sends the first part of a message that is too long to be put
// together first.
func (st *stream) beginMessage(part []byte) error {
	if err := st.push(); err != nil { // so that it is acknowledged first
		return err
	}
	total := st.total
	st.total = 0
	m, err := st.newMessage(total)
	if m == nil {
		if err == nil {
			err = st.l.Ack(false)
		}
		if err == nil {
			err = ErrTopic // the rest would be taken for another message
		}
		return err
	}
	c := st.c
	if m.qos > 0 {
		c.mu.Lock()
		err := c.use(m)
		if err == nil {
			st.inflight = append(st.inflight, m)
		}
		c.mu.Unlock()
		if err != nil {
			return st.broken(err)
		}
	}
	st.packet.m, st.packet.payload, st.packet.length = m, part, int(total)
	err = c.w.begin(st.ctx, st.add)
	st.packet.m, st.packet.payload = nil, nil
	if err != nil {
		if m.qos > 0 {
			st.takeBack(m)
		}
		return st.broken(err)
	}
	c.mu.Lock()
	c.sending, c.sent, c.moved = st, true, true
	c.mu.Unlock()
	st.cur, st.left = m, int(total)-len(part)
	if m.qos > 0 {
		st.part = part
	}
	return nil
}

// continueMessage sends another part.
func (st *stream) continueMessage(part []byte, end bool) error {
	c := st.c
	if err := c.w.piece(st.ctx, part); err != nil {
		return st.broken(err)
	}
	c.mu.Lock()
	c.sent, c.moved = true, true
	c.mu.Unlock()
	if st.cur.qos > 0 {
		st.part = append(st.part, part...)
	}
	if st.left -= len(part); st.left > 0 {
		if end {
			return ErrLength
		}
		return nil
	}
	st.ended = !end
	m := st.cur
	st.cur = nil
	c.mu.Lock()
	c.sending = nil
	if c.err == nil && c.sess.out[m.id] == m {
		m.payload = st.part
		c.sess.bytes += len(m.payload)
	}
	c.mu.Unlock()
	st.part = nil
	st.wantTx = false
	st.written(m)
	c.w.end()
	if m.qos == 0 {
		return st.l.Ack(true)
	}
	return nil
}

// beginShadow subscribes to what answers a message to the shadow of a thing. It
// reports whether the server took that.
func (st *stream) beginShadow(topic string) (bool, error) {
	if st.shadowTopic != topic {
		st.endShadow()
		if why := wrongHere(topic+"/accepted", true); why != "" {
			return false, nil
		}
		c := st.c
		filters := []string{topic + "/accepted", topic + "/rejected"}
		m := &outMsg{answers: make(chan struct{})}
		qos := st.n.st.MQTT.QoS
		c.mu.Lock()
		if c.use(m) != nil {
			c.mu.Unlock()
			return false, nil
		}
		st.shadow = filters
		c.w.post(func(b []byte) []byte { return appendSubscribe(b, m.id, qos, filters...) })
		c.mu.Unlock()
		st.shadowTopic = topic
		st.shadowEnd = time.NewTimer(shadowReady)
		for done := false; !done; {
			if err := st.deliver(); err != nil {
				return false, err
			}
			select {
			case <-m.answers:
				done = true
			case <-st.wake:
			case <-st.c.dead:
			case <-st.ctx.Done():
				return false, context.Cause(st.ctx)
			case <-st.shadowEnd.C:
				st.endShadow()
				return false, nil
			}
		}
		c.mu.Lock()
		failed := m.failed
		c.mu.Unlock()
		if failed {
			st.endShadow()
			return false, nil
		}
	}
	if st.shadowEnd != nil {
		st.shadowEnd.Stop()
	}
	st.shadowEnd = time.NewTimer(shadowLimit)
	return true, nil
}

// endShadow gives up the subscriptions of beginShadow.
func (st *stream) endShadow() {
	if st.shadowEnd != nil {
		st.shadowEnd.Stop()
		st.shadowEnd = nil
	}
	if st.shadowTopic == "" {
		return
	}
	st.shadowTopic = ""
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	filters := st.shadow
	st.shadow = nil
	c.endShadow(filters)
}

// leave takes the stream off its connection, and closes that if it was the last.
func (st *stream) leave() {
	c := st.c
	if st.cur != nil {
		c.fail(errUnfinished)
		c.w.end()
	}
	if st.unwritten > 0 {
		c.w.post(func(b []byte) []byte { return b })
	}
	wanted := errors.Is(context.Cause(st.ctx), transport.ErrDisconnected)
	c.mu.Lock()
	m, kept := c.detach(st, wanted)
	c.mu.Unlock()
	if m != nil && wanted {
		limit := time.NewTimer(unsubscribeLimit)
		select {
		case <-m.answers:
		case <-c.dead:
		case <-limit.C:
		}
		limit.Stop()
	}
	if c.hub.leave(c) {
		c.close()
	} else if kept { // and somebody joins, for whom no more would come
		c.fail(errKept)
	}
}
