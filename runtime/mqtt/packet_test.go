package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// readAll reads packets as a connection does, and returns their contents.
func readAll(r io.Reader) (got []string, err error) {
	br := bufio.NewReader(r)
	var small [maxControl]byte
	for {
		h, err := readHeader(br)
		if err != nil {
			return got, err
		}
		if h.kind == typePublish {
			p, err := readPublish(br, h, nil)
			if err != nil {
				return got, err
			}
			if p.payload > h.length || len(p.topic) == 0 || p.qos > 0 && p.id == 0 || p.qos == 0 && p.id != 0 {
				return got, fmt.Errorf("bad packet accepted: %+v", p)
			}
			n, err := io.CopyN(io.Discard, br, int64(p.payload))
			if err != nil {
				return got, unexpected(err)
			}
			got = append(got, fmt.Sprintf("publish %q id %d qos %d dup %v retain %v %d", p.topic, p.id, p.qos, p.dup, p.retain, n))
			continue
		}
		b, err := readControl(br, h, &small)
		if err != nil {
			return got, err
		}
		switch h.kind {
		case typeConnack:
			present, err := parseConnack(b)
			if err != nil {
				return got, err
			}
			got = append(got, fmt.Sprintf("connack %v", present))
		case typeSuback:
			id, codes, err := parseSuback(b)
			if err != nil {
				return got, err
			}
			got = append(got, fmt.Sprintf("suback %d %x", id, codes))
		case typePingresp:
			if len(b) != 0 {
				return got, malformed("a long PINGRESP")
			}
			got = append(got, "pingresp")
		default:
			id, err := parseAck(b)
			if err != nil {
				return got, err
			}
			got = append(got, fmt.Sprintf("ack %d %d", h.kind, id))
		}
	}
}

var packets = []struct {
	name string
	in   string
	want string // contents
	err  string // part of the error; "" means io.EOF after the packet
}{
	{"accepted", "\x20\x02\x00\x00", "connack false", ""},
	{"session present", "\x20\x02\x01\x00", "connack true", ""},
	{"refused", "\x20\x02\x00\x05", "", "not authorized"},
	{"refused, session present", "\x20\x02\x01\x05", "", "refuses"},
	{"CONNACK flags", "\x20\x02\x02\x00", "", "CONNACK flags"},
	{"CONNACK code 6", "\x20\x02\x00\x06", "", "CONNACK code 6"},
	{"short CONNACK", "\x20\x01\x00", "", "CONNACK of 1 bytes"},
	{"long CONNACK", "\x20\x03\x00\x00\x00", "", "CONNACK of 3 bytes"},
	{"PUBACK", "\x40\x02\x12\x34", "ack 4 4660", ""},
	{"PUBACK flags", "\x41\x02\x12\x34", "", "flags 0x1"},
	{"PUBACK of 0", "\x40\x02\x00\x00", "", "identifier 0"},
	{"PUBREL", "\x62\x02\x00\x01", "ack 6 1", ""},
	{"PUBREL flags", "\x60\x02\x00\x01", "", "flags 0x0"},
	{"SUBACK", "\x90\x03\x00\x01\x02", "suback 1 02", ""},
	{"SUBACK refused", "\x90\x03\x00\x01\x80", "suback 1 80", ""},
	{"SUBACK code 3", "\x90\x03\x00\x01\x03", "", "SUBACK code"},
	{"SUBACK without a code", "\x90\x02\x00\x01", "", "SUBACK of 2 bytes"},
	{"SUBACK of many", "\x90\x05\x00\x01\x00\x00\x00", "", "5 bytes"},
	{"UNSUBACK", "\xb0\x02\x00\x01", "ack 11 1", ""},
	{"PINGRESP", "\xd0\x00", "pingresp", ""},
	{"long PINGRESP", "\xd0\x01\x00", "", "long PINGRESP"},
	{"huge PINGRESP", "\xd0\xff\xff\xff\x7f", "", "268435455 bytes"},
	{"a length of 5 bytes", "\x30\xff\xff\xff\xff\x01", "", "more than 4 bytes"},
	{"CONNECT", "\x10\x00", "", "type 1 from a server"},
	{"SUBSCRIBE", "\x82\x00", "", "type 8 from a server"},
	{"type 0", "\x00\x00", "", "type 0 from a server"},
	{"type 15", "\xf0\x00", "", "type 15 from a server"},
	{"PUBLISH", "\x30\x05\x00\x01ahi", `publish "a" id 0 qos 0 dup false retain false 2`, ""},
	{"retained", "\x31\x03\x00\x01a", `publish "a" id 0 qos 0 dup false retain true 0`, ""},
	{"QoS 1, DUP", "\x3a\x05\x00\x01a\x00\x07", `publish "a" id 7 qos 1 dup true retain false 0`, ""},
	{"QoS 2", "\x34\x06\x00\x01a\x00\x07!", `publish "a" id 7 qos 2 dup false retain false 1`, ""},
	{"QoS 3", "\x36\x06\x00\x01a\x00\x07!", "", "QoS 3"},
	{"DUP with QoS 0", "\x38\x03\x00\x01a", "", "DUP"},
	{"identifier 0", "\x32\x05\x00\x01a\x00\x00", "", "identifier 0"},
	{"no room for the identifier", "\x32\x04\x00\x01a\x00", "", "shorter than its topic"},
	{"no room for the topic", "\x30\x04\x00\x04abc", "", "shorter than its topic"},
	{"no topic", "\x30\x02\x00\x00", "", "it is empty"},
	{"nothing", "\x30\x00", "", "0 bytes"},
	{"wildcard", "\x30\x05\x00\x03a/#", "", "for filters"},
	{"NUL", "\x30\x05\x00\x03a\x00b", "", "NUL"},
	{"not UTF-8", "\x30\x04\x00\x02a\xff", "", "UTF-8"},
	{"cut in the length", "\x30\x80", "", "unexpected EOF"},
	{"cut in the topic", "\x30\x05\x00\x03a", "", "unexpected EOF"},
	{"cut in the payload", "\x30\x05\x00\x01ah", "", "unexpected EOF"},
	{"cut in an answer", "\x40\x02\x12", "", "unexpected EOF"},
	{"a length in more bytes than necessary", "\x30\x83\x00\x00\x01a", `publish "a" id 0 qos 0 dup false retain false 0`, ""},
}

func TestRead(t *testing.T) {
	for _, p := range packets {
		t.Run(p.name, func(t *testing.T) {
			got, err := readAll(strings.NewReader(p.in))
			if got := strings.Join(got, ", "); got != p.want {
				t.Errorf("got %s, want %s", got, p.want)
			}
			if p.err == "" && err != io.EOF || p.err != "" && !strings.Contains(err.Error(), p.err) {
				t.Errorf("error %v, want %q", err, p.err)
			}
			var refused *RefusedError
			if p.err != "" && !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &refused) {
				t.Errorf("unexpected kind of error: %v", err)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	set := &settings{username: "u", keepAlive: 300, clean: true, will: will{"w/t", "gone", 1, true}}
	long := strings.Repeat("x", 200)
	for _, p := range []struct{ name, got, want string }{
		{"CONNECT", string(appendConnect(nil, "id", new(settings), "")), "\x10\x0e\x00\x04MQTT\x04\x00\x00\x00\x00\x02id"},
		{"CONNECT with everything", string(appendConnect(nil, "id", set, "p")),
			"\x10\x1f\x00\x04MQTT\x04\xee\x01\x2c\x00\x02id\x00\x03w/t\x00\x04gone\x00\x01u\x00\x01p"},
		{"PUBLISH", string(appendPublish(nil, "t", 9, 1, true, true, 3)), "\x3b\x08\x00\x01t\x00\x09"},
		{"long PUBLISH", string(appendPublish(nil, long, 0, 0, false, false, maxRemaining-202)), "\x30\xff\xff\xff\x7f\x00\xc8" + long},
		{"PUBREL", string(appendAck(nil, typePubrel, 258)), "\x62\x02\x01\x02"},
		{"SUBSCRIBE", string(appendSubscribe(nil, 1, 2, "a", "b")), "\x82\x0a\x00\x01\x00\x01a\x02\x00\x01b\x02"},
		{"UNSUBSCRIBE", string(appendUnsubscribe(nil, 1, "a/#")), "\xa2\x07\x00\x01\x00\x03a/#"},
		{"PINGREQ", string(appendPingreq(nil)), "\xc0\x00"},
		{"DISCONNECT", string(appendDisconnect(nil)), "\xe0\x00"},
	} {
		if p.got != p.want {
			t.Errorf("%s: got %x, want %x", p.name, p.got, p.want)
		}
	}
	if got := appendString(nil, "u"); string(got) != "\x00\x01u" {
		t.Errorf("%x", got)
	}
}

// FuzzRead checks that the parsers return a known error or valid packets for all that
// a server may send.
func FuzzRead(f *testing.F) {
	for _, p := range packets {
		f.Add([]byte(p.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := readAll(bytes.NewReader(b))
		var refused *RefusedError
		if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrProtocol) && !errors.As(err, &refused) {
			t.Errorf("unexpected kind of error: %v", err)
		}
	})
}

// FuzzPublish checks that a PUBLISH is read as it was written.
func FuzzPublish(f *testing.F) {
	f.Add("a/b", uint16(7), byte(1), true, false, []byte("hello"))
	f.Add("$x/é", uint16(0), byte(0), false, true, []byte{})
	f.Fuzz(func(t *testing.T, topic string, id uint16, qos byte, dup, retain bool, payload []byte) {
		if invalidTopic(topic) != "" || qos > 2 || qos > 0 && id == 0 || qos == 0 && dup {
			return
		}
		if qos == 0 {
			id = 0
		}
		b := append(appendPublish(nil, topic, id, qos, dup, retain, len(payload)), payload...)
		r := bufio.NewReader(bytes.NewReader(b))
		h, err := readHeader(r)
		if err != nil {
			t.Fatal(err)
		}
		p, err := readPublish(r, h, nil)
		if err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(r)
		if string(p.topic) != topic || p.id != id || p.qos != qos || p.dup != dup || p.retain != retain ||
			p.payload != len(payload) || !bytes.Equal(rest, payload) {
			t.Errorf("%q became %+v", b, p)
		}
	})
}
