package faulttest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
)

// brokerFaults describes how a broker differs from a healthy one. Nil functions
// have no effect.
type brokerFaults struct {
	connack func() (code byte, send bool) // answer to a CONNECT
	mute    map[byte]bool                 // types of packets that the broker does not answer
	drop    func() bool                   // closes the connection when the stream is connected
}

// Types of packets (MQTT 3.1.1 section 2.2.1).
const (
	mqttConnect     = 1
	mqttPublish     = 3
	mqttPubrel      = 6
	mqttSubscribe   = 8
	mqttUnsubscribe = 10
	mqttPingreq     = 12
	mqttDisconnect  = 14
)

var errPacket = errors.New("malformed packet")

// readPacket reads a packet of MQTT 3.1.1.
func readPacket(r *bufio.Reader) (first byte, body []byte, err error) {
	if first, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		if length |= int(b&0x7f) << shift; b < 0x80 {
			break
		}
		if shift == 21 {
			return 0, nil, errPacket
		}
	}
	if length > 1<<20 {
		return 0, nil, errPacket
	}
	body = make([]byte, length)
	_, err = io.ReadFull(r, body)
	return first, body, err
}

// broker returns a function that serves an MQTT connection: it acknowledges
// everything, and sends one message to a stream that only subscribes.
func (p *peer) broker(f *brokerFaults) func(net.Conn) {
	if p.options.Upstream != "" && f == nil {
		return p.forward
	}
	if f == nil {
		f = new(brokerFaults)
	}
	ready := byte(mqttConnect) // packet whose acknowledgement connects the stream
	if p.MQTT.Subscribe != "" {
		ready = mqttSubscribe
	}
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			first, body, err := readPacket(r)
			if err != nil {
				return
			}
			kind := first >> 4
			if f.mute[kind] {
				p.strike("packet of type %d is not answered", kind)
				continue
			}
			reply, err := p.reply(f, first, body)
			if err != nil {
				p.logf("broker: %v", err)
				return
			}
			if _, err := c.Write(reply); err != nil {
				return
			}
			if kind == mqttDisconnect {
				return
			}
			if kind != ready || len(reply) == 0 {
				continue
			}
			if f.drop != nil && f.drop() {
				return
			}
			if p.MQTT.Subscribe != "" && p.MQTT.Topic == "" {
				c.Write(p.greeting())
			}
		}
	}
}

// greeting returns a PUBLISH that the stream has subscribed to.
func (p *peer) greeting() []byte {
	topic := strings.NewReplacer("#", "x", "+", "x").Replace(p.MQTT.Subscribe)
	topic = topic[:min(len(topic), 100)]
	out := []byte{mqttPublish << 4, byte(2 + len(topic) + len("hello")), 0, byte(len(topic))}
	return append(append(out, topic...), "hello"...)
}

// reply returns the answer to a packet.
func (p *peer) reply(f *brokerFaults, first byte, body []byte) ([]byte, error) {
	id := func() []byte { return body[:2] }
	switch kind := first >> 4; kind {
	case mqttConnect:
		code, send := byte(0), true
		if f.connack != nil {
			code, send = f.connack()
		}
		if !send {
			return nil, nil
		}
		return []byte{0x20, 2, 0, code}, nil
	case mqttPublish:
		qos := first >> 1 & 3
		if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body))+2 {
			return nil, errPacket
		}
		body = body[2+binary.BigEndian.Uint16(body):]
		switch qos {
		case 1:
			return append([]byte{0x40, 2}, id()...), nil
		case 2:
			return append([]byte{0x50, 2}, id()...), nil
		}
	case mqttPubrel:
		if len(body) < 2 {
			return nil, errPacket
		}
		return append([]byte{0x70, 2}, id()...), nil
	case mqttSubscribe:
		if len(body) < 5 {
			return nil, errPacket
		}
		return append(append([]byte{0x90, 3}, id()...), min(body[len(body)-1], 1)), nil
	case mqttUnsubscribe:
		if len(body) < 2 {
			return nil, errPacket
		}
		return append([]byte{0xb0, 2}, id()...), nil
	case mqttPingreq:
		return []byte{0xd0, 0}, nil
	}
	return nil, nil
}
