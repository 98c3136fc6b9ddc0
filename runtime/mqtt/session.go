package mqtt

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"
)

// The limits of lws 5.0.0 (lib/roles/mqtt/private-lib-roles-mqtt.h).
const (
	resendAfter = 3 * time.Second
	maxResends  = 3
)

// maxKept is the number of bytes of unacknowledged messages of a session at which
// programs are not asked for more.
const maxKept = 16 << 20

// errIDs is returned when 65535 packets are unanswered.
var errIDs = errors.New("sspolicy: no packet identifier is free")

// A session is the client's half of the session state (section 4.1), guarded by the
// mu of the connection that has it. It ends with the connection if the policy sets
// mqtt_clean_start, and otherwise is kept in memory for the next connection.
type session struct {
	out      map[uint16]*outMsg // by packet identifier, until that is free again
	bytes    int                // of payload in out
	order    uint64             // of the next message
	next     uint16             // the packet identifier to try next
	received received
	filters  map[string]byte // subscriptions at the server, with their QoS
}

// received holds the identifiers of QoS 2 messages without a PUBREL. It has its own lock,
// because the messages that a connection did not deliver are removed after its end, when
// another one has the session.
type received struct {
	mu  sync.Mutex
	ids map[uint16]bool // false if the server may have forgotten the message
}

// duplicate reports whether a message has been received before (section 4.3.3). If the
// server may have forgotten that one, its identifier can be that of a new message, which
// lacks the flag DUP.
func (r *received) duplicate(id uint16, dup bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	certain, known := r.ids[id]
	return known && (certain || dup)
}

// doubt marks all messages as those that the server may have forgotten.
func (r *received) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.ids {
		r.ids[id] = false
	}
}

func (r *received) add(id uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = make(map[uint16]bool)
	}
	r.ids[id] = true
}

// remove removes an identifier, and reports whether it was there.
func (r *received) remove(id uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.ids[id]
	delete(r.ids, id)
	return known
}

// An outMsg is an unanswered packet with an identifier, or a PUBLISH with QoS 0.
type outMsg struct {
	kind   packetType // typePublish, typeSubscribe, typeUnsubscribe
	id     uint16
	qos    byte
	retain bool
	topic  string
	st     *stream // that waits for the outcome, or nil
	order  uint64

	payload []byte // with QoS 1 and 2, until it is acknowledged or given up

	// Guarded by the mu of the connection that has the session.
	complete bool // all of it has been handed to the writer of this connection
	released bool // PUBREC has been received and PUBREL sent
	done     bool // it has been acknowledged or given up
	failed   bool // it has been given up
	tries    int  // how often it has been repeated
	due      time.Time

	outcome outcome // guarded by the mu of the connection of st

	sub    *subscription // of a SUBSCRIBE, except for a shadow
	answer chan struct{} // closed by the UNSUBACK
}

// An outcome holds done and failed of a message as its stream sees them.
type outcome struct{ known, failed bool }

func newSession() *session {
	return &session{out: map[uint16]*outMsg{}, filters: map[string]byte{}}
}

// use assigns an identifier to a message. It returns false if none was free.
func (s *session) use(m *outMsg) bool {
	for range maxString {
		s.next++
		if s.next == 0 {
			s.next = 1
		}
		if s.out[s.next] == nil {
			m.id = s.next
			m.order = s.order
			s.order++
			s.out[m.id] = m
			s.bytes += len(m.payload)
			return true
		}
	}
	return false
}

// free releases the identifier of a message.
func (s *session) free(m *outMsg) {
	s.forget(m)
	delete(s.out, m.id)
}

// forget drops the payload of a message.
func (s *session) forget(m *outMsg) {
	if s.out[m.id] == m {
		s.bytes -= len(m.payload)
	}
	m.payload = nil
}

// resume prepares the session for another connection. It drops packets that do not
// outlive a connection: incomplete messages, those given up, and packets other than
// messages.
func (s *session) resume() {
	for _, m := range s.out {
		m.st = nil
		if m.kind != typePublish || !m.released && (m.failed || !m.complete) {
			s.free(m)
		}
	}
}

// pending returns the unanswered packets that match, in the order in which they
// must be repeated [MQTT-4.4.0-1, MQTT-4.6.0-1].
func (s *session) pending(match func(*outMsg) bool) []*outMsg {
	var all []*outMsg
	for _, m := range s.out {
		if match(m) {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *outMsg) int { return cmp.Compare(a.order, b.order) })
	return all
}

// appendAgain appends the packet that repeats a message.
func (m *outMsg) appendAgain(b []byte) []byte {
	if m.released {
		return appendAck(b, typePubrel, m.id)
	}
	b = appendPublish(b, m.topic, m.id, m.qos, true, m.retain, len(m.payload))
	return append(b, m.payload...)
}

// useLocked assigns an identifier to a packet. If none is free it ends the
// connection: the server does not answer, and the next connection has all
// identifiers.
func (c *conn) useLocked(m *outMsg) error {
	if c.err == nil && !c.sess.use(m) {
		c.failLocked(errIDs)
	}
	return c.err
}

// settleLocked sets the outcome of a message.
func (c *conn) settleLocked(m *outMsg, failed bool) {
	if m.done {
		return
	}
	m.done, m.failed = true, failed
	if m.st != nil {
		m.outcome = outcome{known: true, failed: failed}
		m.st.wakeUp()
	}
}

// armResendLocked makes sure that resendDue runs in time.
func (c *conn) armResendLocked() {
	if !c.resendArmed && c.err == nil {
		c.resendArmed = true
		c.resend.Reset(c.hub.t.resendAfter)
	}
}

// resendDue repeats or gives up the messages that were not answered in time.
func (c *conn) resendDue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resendArmed = false
	if c.err != nil {
		return
	}
	now := time.Now()
	next := time.Duration(0) // time to the next call; 0 means none
	schedule := func(m *outMsg) {
		if d := m.due.Sub(now); next == 0 || d < next {
			next = d
		}
	}
	for _, m := range c.sess.pending(func(m *outMsg) bool {
		return m.complete && (!m.done || m.released) && m.tries <= maxResends
	}) {
		switch {
		case m.due.After(now):
		case m.tries == maxResends:
			m.tries++
			c.giveUpLocked(m)
			continue
		default:
			m.tries++
			m.due = now.Add(c.hub.t.resendAfter)
			c.w.post(m.appendAgain)
		}
		schedule(m)
	}
	if next != 0 {
		c.resendArmed = true
		c.resend.Reset(next)
	}
}

// giveUpLocked ends the repetition of a message. Its identifier stays in use, since
// an answer may still arrive.
func (c *conn) giveUpLocked(m *outMsg) {
	c.settleLocked(m, true)
	c.sess.forget(m)
}
