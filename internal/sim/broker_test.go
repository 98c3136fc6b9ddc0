package sim

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// A broker is an MQTT 3.1.1 server that counts the messages it receives.
type broker struct {
	w *world
	h *host

	mu       sync.Mutex
	sessions map[string]*brokerSession // by client id
	lost     time.Time                 // when the sessions were lost
}

// A brokerSession is the server's half of a session (section 4.1).
type brokerSession struct {
	id       string
	clean    bool
	conn     *brokerConn      // nil without a connection
	filters  map[string]byte  // subscriptions, with their QoS
	received map[uint16]bool  // identifiers of QoS 2 messages without a PUBREL
	out      []*brokerMessage // unacknowledged messages to the client
	next     uint16
}

// A brokerMessage is a message to a client.
type brokerMessage struct {
	id       uint16
	qos      byte
	topic    string
	payload  []byte
	since    time.Time
	released bool // PUBREC has been received
}

type brokerConn struct {
	net.Conn
	d       draws
	resumed bool      // the session existed before
	lost    time.Time // when the broker last lost its sessions
}

// Types of packets.
const (
	connect = 1 + iota
	connack
	publish
	puback
	pubrec
	pubrel
	pubcomp
	subscribe
	suback
	unsubscribe
	unsuback
	pingreq
	pingresp
	disconnect
)

// packetOf returns a packet, of at most 2097151 bytes after its header.
func packetOf(first byte, body ...[]byte) []byte {
	rest := slices.Concat(body...)
	return append(binary.AppendUvarint([]byte{first}, uint64(len(rest))), rest...)
}

func number16(n uint16) []byte { return []byte{byte(n >> 8), byte(n)} }

// ackOf returns a packet whose body is an identifier.
func ackOf(kind byte, id uint16) []byte {
	first := kind << 4
	if kind == pubrel {
		first |= 2
	}
	return packetOf(first, number16(id))
}

// publishOf returns a PUBLISH.
func publishOf(m *brokerMessage, dup bool) []byte {
	first := byte(publish<<4) | m.qos<<1
	if dup && m.qos > 0 {
		first |= 8
	}
	var id []byte
	if m.qos > 0 {
		id = number16(m.id)
	}
	return packetOf(first, number16(uint16(len(m.topic))), []byte(m.topic), id, m.payload)
}

// fields decodes the fields of a packet. It panics with errPacket if one is missing.
type fields []byte

func (f *fields) take(n int) []byte {
	if len(*f) < n {
		panic(errPacket)
	}
	b := (*f)[:n]
	*f = (*f)[n:]
	return b
}
func (f *fields) byte() byte     { return f.take(1)[0] }
func (f *fields) number() uint16 { return binary.BigEndian.Uint16(f.take(2)) }
func (f *fields) text() string   { return string(f.take(int(f.number()))) }

var errPacket = fmt.Errorf("malformed packet")

// serveMQTT returns a function that starts a broker.
func serveMQTT(secure bool) func(w *world, h *host) {
	return func(w *world, h *host) {
		b := &broker{w: w, h: h, sessions: map[string]*brokerSession{}}
		h.onRestart = b.onRestart
		var config *tls.Config
		if secure {
			config = w.serverTLS(h, "x-amzn-mqtt-ca")
		}
		w.serve(h, config, b.handle)
	}
}

// onRestart handles a restart of the broker.
func (b *broker) onRestart(lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if lost {
		b.lost = time.Now()
	}
	for id, s := range b.sessions {
		if lost || s.clean {
			delete(b.sessions, id)
		}
		s.conn = nil
	}
}

// handle serves a connection.
func (b *broker) handle(nc net.Conn, number int) {
	c := &brokerConn{Conn: nc, d: fork(b.w.seed, "broker", b.h.name, number)}
	r := bufio.NewReader(nc)
	var s *brokerSession
	defer func() {
		if e := recover(); e != nil && e != errPacket {
			panic(e)
		} else if e != nil {
			b.w.find([]string{b.h.name}, "malformed packet")
		}
		if s == nil {
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if s.conn == c {
			s.conn = nil
			if s.clean {
				delete(b.sessions, s.id)
			}
		}
	}()
	for {
		first, err := r.ReadByte()
		if err != nil {
			return
		}
		length, err := binary.ReadUvarint(r)
		if err != nil {
			return
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		now := time.Now()
		if e := b.w.plan.active(now, b.h.name, peerSlow, peerReads); e != nil {
			time.Sleep(c.d.at(now, c.d.ms(1, max(e.arg/4, 300))).Sub(now))
		}
		bad := b.w.plan.active(time.Now(), b.h.name, peerBad) != nil
		if bad && c.d.oneIn(12) {
			return
		}
		if s == nil {
			if first>>4 != connect {
				b.w.find([]string{b.h.name}, "a packet of type %d in place of CONNECT", first>>4)
				return
			}
			if s = b.connect(c, body, bad); s == nil {
				return
			}
			continue
		}
		if first>>4 == disconnect {
			return
		}
		b.packet(c, s, first, body, bad)
	}
}

// connect answers a CONNECT. It returns nil if it rejects the client.
func (b *broker) connect(c *brokerConn, body fields, bad bool) *brokerSession {
	if body.text() != "MQTT" || body.byte() != 4 {
		panic(errPacket)
	}
	flags := body.byte()
	body.number()
	id := body.text()
	if b.w.plan.active(time.Now(), b.h.name, peerSilent) != nil {
		now := time.Now()
		time.Sleep(c.d.at(now, 30*time.Second).Sub(now))
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if bad && c.d.oneIn(3) {
		c.Write(packetOf(connack<<4, []byte{0, 3}))
		return nil
	}
	s := b.sessions[id]
	var before *brokerConn
	if s != nil && s.conn != nil { // [MQTT-3.1.4-2]
		before = s.conn
		before.Close()
	}
	clean := flags&2 != 0
	present := byte(0)
	if s == nil || clean || s.clean {
		s = &brokerSession{id: id, filters: map[string]byte{}, received: map[uint16]bool{}}
		b.sessions[id] = s
	} else {
		present = 1
	}
	c.resumed, c.lost = present == 1, b.lost
	s.clean, s.conn = clean, c
	if !strings.HasPrefix(id, "sim") {
		id = "random"
	}
	b.w.tr.note(b.h.name, "CONNECT %s, session %d", id, present)
	c.Write(packetOf(connack<<4, []byte{present, 0}))
	if present == 1 && before != nil {
		b.checkHandOver(before, c)
	}
	for _, m := range s.out {
		if m.released {
			c.Write(ackOf(pubrel, m.id))
		} else {
			c.Write(publishOf(m, true))
		}
	}
	return s
}

// packet answers a packet.
func (b *broker) packet(c *brokerConn, s *brokerSession, first byte, body fields, bad bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.conn != c || b.sessions[s.id] != s { // another connection has taken over the session
		c.Close()
		return
	}
	answer := func(packet []byte) {
		if b.w.plan.active(time.Now(), b.h.name, peerSilent) == nil && !(bad && c.d.oneIn(6)) {
			c.Write(packet)
		}
	}
	switch first >> 4 {
	case publish:
		qos := first >> 1 & 3
		topic := body.text()
		var id uint16
		if qos > 0 {
			id = body.number()
		}
		again := qos == 2 && s.received[id]
		if !again {
			b.receive(c, topic, qos, body)
		}
		switch qos {
		case 1:
			answer(ackOf(puback, id))
		case 2:
			s.received[id] = true
			answer(ackOf(pubrec, id))
		}
	case pubrel:
		id := body.number()
		delete(s.received, id)
		answer(ackOf(pubcomp, id))
	case puback, pubcomp:
		id := body.number()
		if first>>4 == puback {
			b.checkTaken(s, id)
		}
		s.out = slices.DeleteFunc(s.out, func(m *brokerMessage) bool { return m.id == id })
	case pubrec:
		id := body.number()
		b.checkTaken(s, id)
		for _, m := range s.out {
			if m.id == id {
				m.released = true
			}
		}
		c.Write(ackOf(pubrel, id))
	case subscribe:
		id := body.number()
		var codes []byte
		for len(body) > 0 {
			filter, qos := body.text(), body.byte()
			if bad && c.d.oneIn(3) {
				codes = append(codes, 0x80)
				continue
			}
			s.filters[filter] = qos
			codes = append(codes, qos)
		}
		answer(packetOf(suback<<4, number16(id), codes))
	case unsubscribe:
		id := body.number()
		for len(body) > 0 {
			delete(s.filters, body.text())
		}
		answer(ackOf(unsuback, id))
	case pingreq:
		answer(packetOf(pingresp << 4))
	default:
		b.w.find([]string{b.h.name}, "a packet of type %d from a client", first>>4)
	}
}

// checkHandOver checks that a client that resumes its session on a connection stops using
// it on the previous one.
func (b *broker) checkHandOver(before, next *brokerConn) {
	x, ok := before.Conn.(*conn)
	y, ok2 := next.Conn.(*conn)
	if !ok || !ok2 || x.owner != y.owner { // over TLS, a connection takes time to end
		return
	}
	y.mu.Lock()
	at := y.last // arrival of the CONNACK
	y.mu.Unlock()
	time.AfterFunc(time.Until(at)+1, func() {
		if x.peer.isOpen() && y.peer.isOpen() {
			b.w.find([]string{b.h.name}, "two connections of a client use the session, %s and %s", x.id, y.id)
		}
	})
}

// checkTaken checks that an acknowledged message has been delivered. A stream that has
// returned DisconnectMe unsubscribes and drops its messages.
func (b *broker) checkTaken(s *brokerSession, id uint16) {
	i := slices.IndexFunc(s.out, func(m *brokerMessage) bool { return m.id == id })
	if i < 0 || s.clean || b.w.protocol.shared || b.w.protocol.proxied {
		return
	}
	m := s.out[i]
	name, n, _ := strings.Cut(string(m.payload), " ")
	number, _, _ := strings.Cut(n, " ")
	for _, p := range b.w.programs {
		if p.host != b.h.name {
			continue
		}
		p.mu.Lock()
		if key := name + " " + number; !p.talk.(*mqttTalk).ever[key] && !p.declining && !p.declined.After(m.since) {
			p.find("message %s is acknowledged, and has not been delivered", key)
		}
		p.mu.Unlock()
	}
}

// receive counts a message and forwards it to the subscribers.
func (b *broker) receive(c *brokerConn, topic string, qos byte, payload []byte) {
	name, ok := strings.CutPrefix(topic, "t/")
	var i, n, size int
	if _, err := fmt.Sscanf(name, "s%d", &i); !ok || err != nil || i >= len(b.w.programs) {
		b.w.find([]string{b.h.name}, "a message on the topic %q", topic)
		return
	}
	p := b.w.programs[i]
	if _, err := fmt.Sscanf(string(payload[:min(20, len(payload))]), name+" %d %d;", &n, &size); err != nil || p.host != b.h.name {
		p.find("a message of another stream: %q", payload[:min(20, len(payload))])
		return
	}
	switch t := p.talk.(type) {
	case *mqttTalk:
		t.count(c, n, qos, len(payload) == size)
	case *proxiedTalk:
		t.count(c, payload, qos)
	}
	for _, s := range b.sessions {
		matched, best := false, byte(0)
		for filter, q := range s.filters {
			if filter == topic || filter == "t/#" {
				matched, best = true, max(best, q)
			}
		}
		if !matched {
			continue
		}
		m := &brokerMessage{qos: min(qos, best), topic: topic, payload: payload, since: time.Now()}
		if m.qos == 0 {
			if s.conn != nil {
				s.conn.Write(publishOf(m, false))
			}
			continue
		}
		if len(s.out) >= 50 { // limit the queue of a disconnected client
			continue
		}
		s.next = s.next%60000 + 1
		m.id = s.next
		s.out = append(s.out, m)
		if s.conn != nil {
			s.conn.Write(publishOf(m, false))
		}
	}
}
