package mqtt

import (
	"cmp"
	"slices"
	"time"
)

// A session is the client's half of the state that section 4.1 is about. It is
// guarded by the mu of the connection that has it. Where the policy says
// mqtt_clean_start it ends with the connection, else it is kept, in memory, for
// the next one.
type session struct {
	out      map[uint16]*outMsg // by packet identifier, until it is free again
	bytes    int                // of payload in out
	order    uint64             // of the next message
	next     uint16             // the packet identifier to try next
	received map[uint16]bool    // of messages with QoS 2 that have not been released
	filters  map[string]byte    // that the server holds, and their QoS
}

// maxKept is how many bytes of messages that have not been acknowledged a
// session holds before no more are asked for.
const maxKept = 16 << 20

// An outMsg is a message that has been or is being published, or another packet
// that an identifier is in use for.
type outMsg struct {
	id     uint16
	qos    byte
	retain bool
	topic  string
	st     *stream // that is told; nil if nobody is
	order  uint64

	payload []byte // kept for QoS 1 and 2, until it is acknowledged or given up

	// All below is guarded by the mu of the connection.
	written  bool                        // as a whole, by this connection
	released bool                        // PUBREC has come, and PUBREL has been sent
	done     bool                        // acknowledged, or given up
	failed   bool                        // given up
	told     struct{ done, failed bool } // likewise, for st to look at
	tries    int                         // how often it has been sent again
	due      time.Time

	sub     *subscription // that the packet asks for; it is a SUBSCRIBE then
	unsub   string        // the filter that the packet gives up
	answers chan struct{} // closed when the answer to an UNSUBSCRIBE has come
}

func newSession() *session {
	return &session{
		out: map[uint16]*outMsg{}, received: map[uint16]bool{}, filters: map[string]byte{},
	}
}

// use finds an identifier for a message, and keeps it.
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

// free makes the identifier of a message free.
func (s *session) free(m *outMsg) {
	s.forget(m)
	delete(s.out, m.id)
}

// forget gives up the payload of a message.
func (s *session) forget(m *outMsg) {
	if s.out[m.id] == m {
		s.bytes -= len(m.payload)
	}
	m.payload = nil
}

// cut drops what can not outlive a connection: what is half sent, given up, or
// no message.
func (s *session) cut() {
	for _, m := range s.out {
		m.st = nil
		if m.sub != nil || m.unsub != "" || m.failed || !m.written && !m.released {
			s.free(m)
		}
	}
}

// unfinished returns those of what waits for an answer that want says, in the
// order in which they are to be sent again [MQTT-4.4.0-1, MQTT-4.6.0-1].
func (s *session) unfinished(want func(*outMsg) bool) []*outMsg {
	var all []*outMsg
	for _, m := range s.out {
		if want(m) {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *outMsg) int { return cmp.Compare(a.order, b.order) })
	return all
}

// again appends what a message is sent again by.
func (m *outMsg) again(b []byte) []byte {
	if m.released {
		return appendAck(b, typePubrel, m.id)
	}
	b = appendPublish(b, m.topic, m.id, m.qos, true, m.retain, len(m.payload))
	return append(b, m.payload...)
}
