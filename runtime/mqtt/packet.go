package mqtt

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"
)

// Section numbers, and rules in brackets, refer to OASIS MQTT Version 3.1.1,
// 29 October 2014.

// A packetType is the upper half of the first byte of a packet (section 2.2.1).
type packetType byte

const (
	typeConnect packetType = 1 + iota
	typeConnack
	typePublish
	typePuback
	typePubrec
	typePubrel
	typePubcomp
	typeSubscribe
	typeSuback
	typeUnsubscribe
	typeUnsuback
	typePingreq
	typePingresp
	typeDisconnect
)

// maxRemaining is the maximum size of a packet after its fixed header (section
// 2.2.3), maxString the maximum size of a string (section 1.5.3), in bytes.
const (
	maxRemaining = 1<<28 - 1
	maxString    = 1<<16 - 1
)

// A header is the fixed header of a packet (section 2.2).
type header struct {
	kind   packetType
	flags  byte
	length int // of the rest of the packet, in bytes
}

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, a...))
}

// readHeader reads a fixed header. It rejects packets that servers do not send.
func readHeader(r *bufio.Reader) (header, error) {
	first, err := r.ReadByte()
	if err != nil {
		return header{}, err
	}
	h := header{kind: packetType(first >> 4), flags: first & 0xf}
	want := byte(0) // [MQTT-2.2.2-2]
	switch h.kind {
	case typePublish:
		want = h.flags
	case typePubrel:
		want = 2 // [MQTT-3.6.1-1]
	case typeConnack, typePuback, typePubrec, typePubcomp, typeSuback, typeUnsuback, typePingresp:
	default:
		return header{}, malformed("packet type %d from a server", h.kind)
	}
	if h.flags != want {
		return header{}, malformed("flags %#x in packet type %d", h.flags, h.kind)
	}
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return header{}, unexpected(err)
		}
		h.length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return header{}, malformed("a remaining length of more than 4 bytes")
		}
	}
	return h, nil
}

// unexpected converts io.EOF in the middle of a packet to io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// maxControl is the maximum size of packets other than PUBLISH after the fixed
// header, in bytes: a SUBACK for two filters has 4.
const maxControl = 4

// readControl reads the rest of a packet other than a PUBLISH.
func readControl(r io.Reader, h header, buf *[maxControl]byte) ([]byte, error) {
	if h.length > maxControl {
		return nil, malformed("%d bytes in packet type %d", h.length, h.kind)
	}
	b := buf[:h.length]
	_, err := io.ReadFull(r, b)
	return b, unexpected(err)
}

// parseConnack parses a CONNACK (section 3.2) without its fixed header. A refusal is
// a *RefusedError.
func parseConnack(b []byte) (present bool, err error) {
	switch {
	case len(b) != 2:
		return false, malformed("a CONNACK of %d bytes", len(b))
	case b[0] > 1: // section 3.2.2.1: the other bits are reserved
		return false, malformed("CONNACK flags %#x", b[0])
	case b[1] > 5:
		return false, malformed("CONNACK code %d", b[1])
	case b[1] != 0 && b[0] != 0: // [MQTT-3.2.2-4]
		return false, malformed("a CONNACK that refuses and has a session")
	case b[1] != 0:
		return false, &RefusedError{Code: b[1]}
	}
	return b[0] == 1, nil
}

// parseID parses a packet identifier, which must not be 0 [MQTT-2.3.1-1].
func parseID(b []byte) (uint16, error) {
	id := binary.BigEndian.Uint16(b)
	if id == 0 {
		return 0, malformed("packet identifier 0")
	}
	return id, nil
}

// parseAck parses a PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK (sections 3.4 to
// 3.7, 3.11) without its fixed header.
func parseAck(b []byte) (id uint16, err error) {
	if len(b) != 2 {
		return 0, malformed("an acknowledgement of %d bytes", len(b))
	}
	return parseID(b)
}

// subscribeFailed is the code of a refused filter.
const subscribeFailed = 0x80

// parseSuback parses a SUBACK (section 3.9) without its fixed header.
func parseSuback(b []byte) (id uint16, codes []byte, err error) {
	if len(b) < 3 {
		return 0, nil, malformed("a SUBACK of %d bytes", len(b))
	}
	for _, code := range b[2:] {
		if code > 2 && code != subscribeFailed { // [MQTT-3.9.3-2]
			return 0, nil, malformed("SUBACK code %#x", code)
		}
	}
	id, err = parseID(b)
	return id, b[2:], err
}

// A publish is a PUBLISH without its payload (section 3.3).
type publish struct {
	topic   []byte
	id      uint16 // 0 if qos is 0
	qos     byte
	dup     bool
	retain  bool
	payload int // length in bytes
}

// readPublish reads a PUBLISH up to its payload. It stores the topic in topic if
// that has the capacity.
func readPublish(r io.Reader, h header, topic []byte) (p publish, err error) {
	p.dup, p.qos, p.retain = h.flags&8 != 0, h.flags>>1&3, h.flags&1 != 0
	switch {
	case p.qos == 3: // [MQTT-3.3.1-4]
		return p, malformed("a PUBLISH with QoS 3")
	case p.qos == 0 && p.dup: // [MQTT-3.3.1-2]
		return p, malformed("a PUBLISH with DUP and QoS 0")
	}
	var two [2]byte
	p.payload = h.length - 2
	if p.payload < 0 {
		return p, malformed("a PUBLISH of %d bytes", h.length)
	}
	if _, err := io.ReadFull(r, two[:]); err != nil {
		return p, unexpected(err)
	}
	n := int(binary.BigEndian.Uint16(two[:]))
	p.payload -= n
	if p.qos > 0 {
		p.payload -= 2
	}
	if p.payload < 0 {
		return p, malformed("a PUBLISH shorter than its topic")
	}
	if n > cap(topic) {
		topic = make([]byte, n)
	}
	p.topic = topic[:n]
	if _, err := io.ReadFull(r, p.topic); err != nil {
		return p, unexpected(err)
	}
	if reason := invalidTopic(p.topic); reason != "" {
		return p, malformed("topic of a PUBLISH: %s", reason)
	}
	if p.qos > 0 {
		if _, err := io.ReadFull(r, two[:]); err != nil {
			return p, unexpected(err)
		}
		p.id, err = parseID(two[:])
	}
	return p, err
}

// appendHeader appends a fixed header.
func appendHeader(b []byte, kind packetType, flags byte, length int) []byte {
	b = append(b, byte(kind)<<4|flags)
	for ; length > 0x7f; length >>= 7 {
		b = append(b, byte(length)|0x80)
	}
	return append(b, byte(length))
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendConnect appends a CONNECT (section 3.1).
func appendConnect(b []byte, id string, s *settings, password string) []byte {
	var flags byte
	length := 10 + 2 + len(id)
	if s.clean {
		flags |= 2
	}
	if s.will.topic != "" {
		flags |= 4 | s.will.qos<<3
		if s.will.retain {
			flags |= 0x20
		}
		length += 4 + len(s.will.topic) + len(s.will.message)
	}
	if password != "" {
		flags |= 0x40
		length += 2 + len(password)
	}
	if s.username != "" {
		flags |= 0x80
		length += 2 + len(s.username)
	}
	b = appendHeader(b, typeConnect, 0, length)
	b = appendString(b, "MQTT")
	b = append(b, 4, flags) // the protocol level of 3.1.1
	b = binary.BigEndian.AppendUint16(b, s.keepAlive)
	b = appendString(b, id)
	if s.will.topic != "" {
		b = appendString(b, s.will.topic)
		b = appendString(b, s.will.message)
	}
	if s.username != "" {
		b = appendString(b, s.username)
	}
	if password != "" {
		b = appendString(b, password)
	}
	return b
}

// publishLength returns the length of a PUBLISH after its fixed header, in bytes.
func publishLength(topic string, qos byte, payload int) int {
	n := 2 + len(topic) + payload
	if qos > 0 {
		n += 2
	}
	return n
}

// appendPublish appends a PUBLISH without its payload, whose length in bytes is
// payload.
func appendPublish(b []byte, topic string, id uint16, qos byte, dup, retain bool, payload int) []byte {
	flags := qos << 1
	if dup {
		flags |= 8
	}
	if retain {
		flags |= 1
	}
	b = appendHeader(b, typePublish, flags, publishLength(topic, qos, payload))
	b = appendString(b, topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return b
}

// appendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func appendAck(b []byte, kind packetType, id uint16) []byte {
	var flags byte
	if kind == typePubrel {
		flags = 2
	}
	b = appendHeader(b, kind, flags, 2)
	return binary.BigEndian.AppendUint16(b, id)
}

// appendSubscribe appends a SUBSCRIBE (section 3.8).
func appendSubscribe(b []byte, id uint16, qos byte, filters ...string) []byte {
	length := 2
	for _, f := range filters {
		length += 2 + len(f) + 1
	}
	b = appendHeader(b, typeSubscribe, 2, length)
	b = binary.BigEndian.AppendUint16(b, id)
	for _, f := range filters {
		b = append(appendString(b, f), qos)
	}
	return b
}

// appendUnsubscribe appends an UNSUBSCRIBE (section 3.10).
func appendUnsubscribe(b []byte, id uint16, filters ...string) []byte {
	length := 2
	for _, f := range filters {
		length += 2 + len(f)
	}
	b = appendHeader(b, typeUnsubscribe, 2, length)
	b = binary.BigEndian.AppendUint16(b, id)
	for _, f := range filters {
		b = appendString(b, f)
	}
	return b
}

func appendPingreq(b []byte) []byte    { return appendHeader(b, typePingreq, 0, 0) }
func appendDisconnect(b []byte) []byte { return appendHeader(b, typeDisconnect, 0, 0) }

// invalidString returns why a text is not an MQTT string (section 1.5.3), or "".
// The section allows rejecting control characters and noncharacters, as brokers do.
func invalidString[T string | []byte](s T) string {
	if len(s) > maxString {
		return "it is longer than 65535 bytes"
	}
	ascii := true
	for i := range len(s) {
		switch b := s[i]; {
		case b == 0: // [MQTT-1.5.3-2]
			return "it contains a NUL"
		case b < ' ' || b == 0x7f:
			return "it contains a control character"
		case b >= utf8.RuneSelf:
			ascii = false
		}
	}
	if ascii {
		return ""
	}
	if !utf8.ValidString(string(s)) { // [MQTT-1.5.3-1]
		return "it is not UTF-8"
	}
	for _, r := range string(s) {
		switch {
		case 0x80 <= r && r < 0xa0:
			return "it contains a control character"
		case 0xfdd0 <= r && r <= 0xfdef, r&0xfffe == 0xfffe:
			return "it contains a noncharacter of Unicode"
		}
	}
	return ""
}
