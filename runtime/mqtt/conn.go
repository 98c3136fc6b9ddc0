package mqtt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// resendAfter and maxResends are those of lws 5.0.0
	// (lib/roles/mqtt/private-lib-roles-mqtt.h).
	resendAfter = 3 * time.Second
	maxResends  = 3

	// slowAfter is how long a stream may keep others waiting, and twice that is
	// the most: so their messages are not given up meanwhile. They wait when no
	// more is read, and, since acknowledgements are sent in order, when more
	// than maxUnacked are due: a server sends only so much ahead of them
	// (mosquitto 20 messages).
	slowAfter  = 4 * time.Second
	maxUnacked = 8

	// unsubscribeLimit is how long a stream that leaves waits for the answer to
	// its UNSUBSCRIBE, as in lws.
	unsubscribeLimit = 3 * time.Second

	readBuffer = 32 << 10
	maxPiece   = 16 << 10 // of received payload
)

// settings are what a CONNECT says beside the client id and the password. Streams
// that share a connection agree on them.
type settings struct {
	username  string
	keepAlive uint16 // in seconds
	clean     bool
	will      will
}

type will struct {
	topic, message string
	qos            byte
	retain         bool
}

// A conn is a connection that streams share.
type conn struct {
	hub   *hub
	set   settings
	users int // streams that have or want it; guarded by the mu of the transport

	ready chan struct{} // closed when it is good, or will never be
	err0  error         // why it will never be; set before ready is closed
	again bool          // only the stream that made it gave up; likewise

	nc   net.Conn
	br   *bufio.Reader
	w    *writer
	dead chan struct{} // closed when the connection has ended
	wg   sync.WaitGroup

	mu      sync.Mutex
	room    sync.Cond // there may be room in the queue of a stream
	err     error     // why it has ended
	sess    *session
	streams []*stream
	subs    map[string]*subscription
	births  map[will]bool
	acks    []*inMsg // to be acknowledged, in the order in which they came
	waiting bool     // the reader waits for a stream
	waited  bool     // it has, since watch was started
	sending *stream  // that is in the middle of a message; nil if none is
	sent    bool     // a piece of that has been, since watch was started
	moved   bool     // likewise, since lookForSlow looked
	resend  *time.Timer
	pending bool // resend is set
	slow    *time.Timer
	keep    *time.Timer
	watch   *transport.Validity
	setup   *transport.Setup // of the stream that made the connection

	// The reader's own.
	topic []byte
	to    []*stream
	small [maxControl]byte
}

// A subscription is a filter that one or more streams have.
type subscription struct {
	filter string
	refs   int
	asked  byte    // the highest QoS that has been asked for, and 1
	latest *outMsg // the SUBSCRIBE that asked for that
}

// An inMsg is a received message that has to be acknowledged, once all who get
// it have had it.
type inMsg struct {
	id   uint16
	qos  byte
	left int // who have not had it, and the reader, who has not read it all
}

// connect makes the connection: dials, and exchanges CONNECT and CONNACK.
func (c *conn) connect(ctx context.Context, l transport.Link, id, password string, first *stream) error {
	c.setup = first.n.setup
	nc, err := c.setup.Dial(ctx, l.Target(), alpn)
	if err != nil {
		return err
	}
	transport.Trace(ctx).GotConn(httptrace.GotConnInfo{Conn: nc})
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.nc, c.br = nc, bufio.NewReaderSize(nc, readBuffer)
	present, err := c.handshake(id, password)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	c.w = newWriter(nc, c.fail)
	c.mu.Lock()
	c.resume(present)
	c.attach(first)
	c.mu.Unlock()
	c.start()
	return nil
}

func (c *conn) handshake(id, password string) (present bool, err error) {
	if id == "" {
		id = randomID()
	}
	if _, err := c.nc.Write(appendConnect(nil, id, &c.set, password)); err != nil {
		return false, err
	}
	h, err := readHeader(c.br)
	if err != nil {
		return false, lost(err)
	}
	if h.kind != typeConnack { // [MQTT-3.2.0-1]
		return false, malformed("a packet of type %d where a CONNACK is due", h.kind)
	}
	b, err := readControl(c.br, h, &c.small)
	if err != nil {
		return false, lost(err)
	}
	if present, err = parseConnack(b); err == nil && present && c.set.clean {
		return false, malformed("a session that is present, where none was wanted") // [MQTT-3.2.2-1]
	}
	return present, err
}

// lost is for the end of the connection by the server, which is never what was
// to come.
func lost(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// resume takes up the session, if there is one that both sides know of. mu is
// held.
func (c *conn) resume(present bool) {
	if c.set.clean || !present || c.hub.session == nil {
		c.sess = newSession()
		if c.hub.key.id != "" { // else there are other connections
			c.hub.session = nil
			if !c.set.clean {
				if present { // the server may wait for identifiers of another process
					c.sess.next = uint16(rand.Uint32())
				}
				c.hub.session = c.sess
				c.hub.hold(c)
			}
		}
		return
	}
	// A connection that is being closed has no more to do with the session. It
	// may take its time where the server reads nothing, and say DISCONNECT only.
	if was := c.hub.hold(c); was != nil {
		was.fail(transport.ErrClosed)
	}
	c.sess = c.hub.session
	c.sess.cut()
	now := time.Now()
	for _, m := range c.sess.unfinished(func(*outMsg) bool { return true }) {
		c.w.post(m.again)
		m.written, m.tries, m.due = true, 0, now.Add(resendAfter)
	}
	c.armResend()
}

// start starts what serves a good connection.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.startWatch()
	if c.set.keepAlive > 0 {
		c.keep = time.AfterFunc(c.keepAlive(), c.keepUp)
	}
	c.wg.Go(func() { c.w.run(c.dead) })
	c.wg.Go(func() { c.fail(lost(c.read())) })
}

func (c *conn) keepAlive() time.Duration { return time.Duration(c.set.keepAlive) * time.Second }

// startWatch starts the watch over the connection: by svalidping and svalidhup,
// and by the keep alive, whose PINGREQ is to be answered within half of it
// (section 3.1.2.10 gives a server as long). mu is held.
func (c *conn) startWatch() {
	ping, hangup := c.setup.Stream.Validity()
	if limit := c.keepAlive() * 3 / 2; limit > 0 && (hangup == 0 || limit < hangup) {
		hangup = limit
	}
	c.waited, c.sent = c.waiting, false
	c.watch = c.setup.Env.Watch(ping, hangup, c.setup.Stream.SwakeValidity, func() { c.w.post(appendPingreq) }, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case c.err != nil:
		case c.sent: // no PINGREQ could be, and the server takes what is sent instead
			c.startWatch()
		case c.waited && !c.w.stuck(): // what the server may have answered was not read
			c.startWatch()
		default:
			c.failLocked(transport.ErrNoValidity)
		}
	})
}

// keepUp sends a PINGREQ when nothing else has been sent for the keep alive
// [MQTT-3.1.2-23].
func (c *conn) keepUp() {
	left := c.keepAlive() - time.Since(c.w.silence())
	if left <= 0 {
		c.w.post(appendPingreq)
		left = c.keepAlive()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.keep.Reset(left)
	}
}

// fail ends the connection.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	close(c.dead)
	c.wg.Go(func() { c.nc.Close() }) // over TLS it may take its time
	for _, t := range []*time.Timer{c.resend, c.slow, c.keep} {
		if t != nil {
			t.Stop()
		}
	}
	c.watch.Stop()
	c.room.Broadcast()
	c.w.stop(err)
	c.hub.drop(c)
}

// read reads packets until the connection ends.
func (c *conn) read() error {
	for {
		c.w.room()
		h, err := readHeader(c.br)
		if err != nil {
			return err
		}
		if h.kind == typePublish {
			err = c.receive(h)
		} else {
			var b []byte
			if b, err = readControl(c.br, h, &c.small); err == nil {
				err = c.control(h.kind, b)
			}
		}
		if err != nil {
			return err
		}
	}
}

// control does what a packet other than a PUBLISH says.
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
		c.watch.Confirm()
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
	if kind == typePubrel {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			return c.err
		}
		delete(c.sess.received, id)
		c.w.post(func(b []byte) []byte { return appendAck(b, typePubcomp, id) })
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.Confirm()
	if c.err != nil { // the session may be another connection's by now
		return c.err
	}
	m := c.sess.out[id]
	// An answer to what has been given up, or answered before, is passed over.
	switch {
	case kind == typePubrec && m == nil:
		// Of a message that this client knows no more of; so that the server
		// forgets it too (section 4.3.3).
		c.w.post(func(b []byte) []byte { return appendAck(b, typePubrel, id) })
	case m == nil:
	case m.sub != nil:
		return malformed("a packet of type %d answers a SUBSCRIBE", kind)
	case kind == typePuback && m.qos == 1:
		c.settle(m, false)
		c.sess.free(m)
	case kind == typePubrec && m.qos == 2:
		c.settle(m, false)
		c.sess.forget(m)
		m.released, m.tries, m.due = true, 0, time.Now().Add(resendAfter)
		c.armResend()
		c.w.post(func(b []byte) []byte { return appendAck(b, typePubrel, id) })
	case kind == typePubcomp && m.qos == 2 && m.released:
		c.sess.free(m)
	case kind == typeUnsuback && m.unsub != "":
		c.sess.free(m)
		close(m.answers)
	case kind == typePubcomp && m.qos == 2:
	default:
		return malformed("a packet of type %d answers one of another kind", kind)
	}
	return nil
}

// errIDs: 65535 packets wait for an answer.
var errIDs = errors.New("sspolicy: no packet identifier is free")

// use finds an identifier for a packet. If there is none the connection ends:
// so many packets are never answered, and their identifiers are free on the
// next one. mu is held.
func (c *conn) use(m *outMsg) error {
	if c.err == nil && !c.sess.use(m) {
		c.failLocked(errIDs)
	}
	return c.err
}

// settle says how a message has ended. mu is held.
func (c *conn) settle(m *outMsg, failed bool) {
	if m.done {
		return
	}
	m.done, m.failed = true, failed
	if m.st != nil {
		m.told.done, m.told.failed = true, failed
		m.st.wakeUp()
	}
}

// armResend sees to it that what is not answered is sent again. mu is held.
func (c *conn) armResend() {
	if c.pending || c.err != nil {
		return
	}
	c.pending = true
	if c.resend == nil {
		c.resend = time.AfterFunc(resendAfter, c.resendDue)
	} else {
		c.resend.Reset(resendAfter)
	}
}

// resendDue sends again, or gives up, what has not been answered in time.
func (c *conn) resendDue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = false
	if c.err != nil {
		return
	}
	now := time.Now()
	var next time.Time
	soonest := func(due time.Time) {
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	for _, m := range c.sess.unfinished(func(m *outMsg) bool {
		if !m.written || m.done && !m.released || m.tries > maxResends {
			return false
		}
		if m.due.After(now) {
			soonest(m.due)
			return false
		}
		return true
	}) {
		m.tries++
		m.due = now.Add(resendAfter)
		if m.tries > maxResends {
			c.giveUp(m)
			continue
		}
		c.w.post(m.again)
		soonest(m.due)
	}
	if !next.IsZero() {
		c.pending = true
		c.resend.Reset(next.Sub(now))
	}
}

// giveUp sends a message no more. Its identifier stays in use, since an answer
// may come yet. mu is held.
func (c *conn) giveUp(m *outMsg) {
	if !m.released {
		c.settle(m, true)
		c.sess.forget(m)
	}
}

// receive reads a message, and hands it to the streams that want it.
func (c *conn) receive(h header) error {
	p, err := readPublish(c.br, h, c.topic[:0])
	c.topic = p.topic[:0]
	if err != nil {
		return err
	}
	var m *inMsg
	if p.qos > 0 {
		m = &inMsg{id: p.id, qos: p.qos}
	}
	c.to = c.to[:0]
	c.mu.Lock()
	if c.err == nil && (p.qos < 2 || !c.sess.received[p.id]) { // else it is a duplicate (section 4.3.3)
		for _, st := range c.streams {
			if st.wants(p.topic) {
				c.to = append(c.to, st)
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
		if err := c.push(b, flags, p.topic, m); err != nil {
			return err
		}
		c.br.Discard(n)
		if left == 0 {
			return nil
		}
	}
}

// push puts a piece into the queues of the streams that want the message, when
// there is room in all of them.
func (c *conn) push(b []byte, flags policy.Flags, topic []byte, m *inMsg) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, st := range c.to {
		for st.open && st.queue.full() && !st.gone && c.err == nil {
			c.waiting, c.waited = true, true
			c.room.Wait()
		}
		if !st.open && !st.gone && st.queue.size() > maxEarly {
			st.expel(ErrSlow)
		}
	}
	c.waiting = false
	if c.err != nil {
		return c.err
	}
	last := flags&policy.FlagEOM != 0 && m != nil
	if last {
		if len(c.acks) == maxString { // [MQTT-2.3.1-4]
			return malformed("more unacknowledged messages than there are packet identifiers")
		}
		m.left = 1 // until all have it
		c.acks = append(c.acks, m)
		if m.qos == 2 {
			c.sess.received[m.id] = true
		}
	}
	for _, st := range c.to {
		if st.gone {
			continue
		}
		if last {
			m.left++
		}
		st.queue.add(b, flags, st.names(topic, flags), m)
		st.wakeUp()
	}
	if last {
		c.had(m)
	}
	return nil
}

// had says that one of those who get a message has had it. It is acknowledged
// when all have, and all before it have been [MQTT-4.6.0-2]. mu is held.
func (c *conn) had(m *inMsg) {
	if m == nil {
		return
	}
	m.left--
	n := 0
	for n < len(c.acks) && c.acks[n].left == 0 {
		m, kind := c.acks[n], typePuback
		if m.qos == 2 {
			kind = typePubrec
		}
		c.w.post(func(b []byte) []byte { return appendAck(b, kind, m.id) })
		n++
	}
	c.acks = slices.Delete(c.acks, 0, n)
}

// subscribed does what a SUBACK says.
func (c *conn) subscribed(id uint16, codes []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.Confirm()
	if c.err != nil {
		return c.err
	}
	m := c.sess.out[id]
	if m == nil || m.sub == nil && m.answers == nil || m.unsub != "" {
		return malformed("a SUBACK of nothing")
	}
	c.sess.free(m)
	want := 1
	if m.sub == nil {
		want = 2 // the two of a shadow
	}
	if len(codes) != want { // [MQTT-3.8.4-5]
		return malformed("a SUBACK with %d codes for %d filters", len(codes), want)
	}
	failed := slices.Contains(codes, subscribeFailed)
	if m.sub == nil {
		m.done, m.failed = true, failed
		close(m.answers)
		return nil
	}
	s := m.sub
	m.done, m.failed = true, failed
	if failed {
		delete(c.sess.filters, s.filter)
		if c.subs[s.filter] == s {
			delete(c.subs, s.filter) // for the next stream to try
		}
	} else if c.subs[s.filter] == s {
		c.sess.filters[s.filter] = m.qos
	}
	for _, st := range c.streams {
		st.wakeUp()
	}
	return nil
}

// attach adds a stream. mu is held.
func (c *conn) attach(st *stream) {
	st.c = c
	c.streams = append(c.streams, st)
	if len(c.streams) == 2 && c.err == nil {
		if c.slow == nil {
			c.slow = time.AfterFunc(slowAfter, c.lookForSlow)
		} else {
			c.slow.Reset(slowAfter)
		}
	}
}

// lookForSlow expels a stream that has not gone on since the time before with
// what it has received, where that keeps others waiting; and ends the connection
// if a stream has not gone on with the message that it is sending.
func (c *conn) lookForSlow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || len(c.streams) < 2 {
		return
	}
	defer c.slow.Reset(slowAfter)
	if c.w.stuck() { // it is the server that is slow
		return
	}
	moved := c.moved
	c.moved = false
	for _, st := range c.streams {
		stuck := st.progress == st.seen
		st.seen = st.progress
		switch {
		case c.sending == st && !moved: // nothing else can be sent
			c.failLocked(ErrSlow)
			return
		case !stuck:
		case st.open && (st.busy || st.queue.size() > 0) && (c.waiting || len(c.acks) > maxUnacked):
			st.expel(ErrSlow)
		}
	}
}

// detach takes a stream off, with its part in what the connection does. It
// returns the UNSUBSCRIBE that is to be waited for, or nil, and whether messages
// for the stream were left to the next connection: those for the last stream of
// one, if the server keeps the session. mu is held.
func (c *conn) detach(st *stream, unsubscribe bool) (m *outMsg, kept bool) {
	c.streams = slices.DeleteFunc(c.streams, func(o *stream) bool { return o == st })
	kept = st.drop(!unsubscribe && !c.set.clean && len(c.streams) == 0 && c.err == nil)
	if c.err == nil {
		for _, m := range st.inflight {
			m.st = nil
		}
		c.endShadow(st.shadow)
	}
	s := st.sub
	st.sub = nil
	if s == nil {
		return nil, kept
	}
	if s.refs--; s.refs > 0 || c.subs[s.filter] != s {
		return nil, kept
	}
	if c.err != nil || !unsubscribe && len(c.streams) == 0 {
		return nil, kept
	}
	delete(c.subs, s.filter)
	return c.unsubscribe(s.filter), kept
}

// unsubscribe sends an UNSUBSCRIBE. mu is held.
func (c *conn) unsubscribe(filter string) *outMsg {
	m := &outMsg{unsub: filter, answers: make(chan struct{})}
	if c.use(m) != nil {
		return nil
	}
	delete(c.sess.filters, filter)
	c.w.post(func(b []byte) []byte { return appendUnsubscribe(b, m.id, filter) })
	return m
}

// endShadow gives up the filters of a shadow that no other stream has. mu is
// held.
func (c *conn) endShadow(filters []string) {
	for _, f := range filters {
		if c.err == nil && !slices.ContainsFunc(c.streams, func(st *stream) bool { return slices.Contains(st.shadow, f) }) {
			c.unsubscribe(f)
		}
	}
}

// close ends the connection in good order (section 3.14).
func (c *conn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	stop := context.AfterFunc(ctx, func() { c.w.interrupt(ctx) })
	c.nc.SetWriteDeadline(time.Now().Add(flushLimit))
	_ = c.w.last(ctx, appendDisconnect)
	stop()
	cancel()
	c.fail(transport.ErrClosed)
	c.wg.Wait()
}
