package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A peer is a broker controlled by a test. It answers each packet correctly, unless answer
// does.
type peer struct {
	// answer is called for each packet, with its contents as text. It reports whether it
	// has answered.
	answer func(c *peerConn, packet string) bool

	tls *tls.Config // nil means without TLS

	mu    sync.Mutex
	start time.Time
	log   []string // packets, each after the time since start if that is not 0
	conns []*peerConn
}

type peerConn struct {
	*peer
	net.Conn
	n     int // of the connection, from 0
	queue chan []byte
	wrote atomic.Int64
}

// Write does not block.
func (c *peerConn) Write(b []byte) (int, error) {
	c.queue <- bytes.Clone(b)
	return len(b), nil
}

// Close closes the connection when everything has been written.
func (c *peerConn) Close() error {
	c.queue <- nil
	return nil
}

func (c *peerConn) write() {
	defer c.Conn.Close()
	for b := range c.queue {
		if b == nil {
			return
		}
		n, err := c.Conn.Write(b)
		c.wrote.Add(int64(n))
		if err != nil {
			c.Conn.Close() // and empty the queue, so that Write does not block
		}
	}
}

// dial is Options.DialContext.
func (p *peer) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.start.IsZero() {
		p.start = time.Now()
	}
	if p.tls != nil {
		theirs = tls.Server(theirs, p.tls)
	}
	c := &peerConn{peer: p, Conn: theirs, n: len(p.conns), queue: make(chan []byte, 1000)}
	p.conns = append(p.conns, c)
	go c.write()
	go c.serve()
	return ours, nil
}

// String returns the packets that have been received.
func (p *peer) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "; ")
}

func (p *peer) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log, p.start = nil, time.Now()
}

// dials returns the number of connections so far.
func (p *peer) dials() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *peer) latest() *peerConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[len(p.conns)-1]
}

func (c *peerConn) serve() {
	defer c.Close()
	br := bufio.NewReader(c.Conn)
	for {
		text, reply, err := readClient(br)
		if err != nil {
			return
		}
		c.mu.Lock()
		if d := time.Since(c.start); d != 0 {
			c.log = append(c.log, fmt.Sprintf("%v: %s", d, text))
		} else {
			c.log = append(c.log, text)
		}
		c.mu.Unlock()
		if c.answer != nil && c.answer(c, text) {
			continue
		}
		if _, err := io.WriteString(c, reply); err != nil {
			return
		}
	}
}

func (c *peerConn) send(s string) { io.WriteString(c, s) }

// message returns a PUBLISH.
func message(topic string, id uint16, qos byte, payload string) string {
	return string(appendPublish(nil, topic, id, qos, false, false, len(payload))) + payload
}

// resume is an answer function that reports a present session to each CONNECT from the
// second connection on.
func resume(c *peerConn, packet string) bool {
	if c.n == 0 || !strings.HasPrefix(packet, "CONNECT") {
		return false
	}
	c.send("\x20\x02\x01\x00")
	return true
}

// readClient reads a packet of a client. It returns the contents as text, and the
// correct answer. It does not use the parser of the package.
func readClient(br *bufio.Reader) (text, reply string, err error) {
	first, err := br.ReadByte()
	if err != nil {
		return "", "", err
	}
	length, err := binary.ReadUvarint(br)
	if err != nil {
		return "", "", err
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(br, b); err != nil {
		return "", "", err
	}
	str := func() string {
		n := 2 + int(binary.BigEndian.Uint16(b))
		s := string(b[2:n])
		b = b[n:]
		return s
	}
	id := func() string {
		s := string(b[:2])
		b = b[2:]
		return s
	}
	num := func(s string) int { return int(binary.BigEndian.Uint16([]byte(s))) }
	switch first >> 4 {
	case 1:
		if str() != "MQTT" || b[0] != 4 {
			return "", "", errors.New("not MQTT 3.1.1")
		}
		flags := b[1]
		b = b[2:]
		keep := num(id())
		client := str()
		text = "CONNECT"
		if len(client) == 23 {
			client = "random"
		}
		text += " " + client
		if flags&2 != 0 {
			text += " clean"
		}
		if keep > 0 {
			text += fmt.Sprintf(" keep %d", keep)
		}
		if flags&4 != 0 {
			text += fmt.Sprintf(" will %s=%s qos %d retain %v", str(), str(), flags>>3&3, flags&0x20 != 0)
		}
		if flags&0x80 != 0 {
			text += " user " + str()
		}
		if flags&0x40 != 0 {
			text += " password " + str()
		}
		return text, "\x20\x02\x00\x00", nil
	case 3:
		topic := str()
		qos := first >> 1 & 3
		text = "PUBLISH " + topic
		if qos > 0 {
			i := id()
			text += fmt.Sprintf(" id %d qos %d", num(i), qos)
			reply = []string{1: "\x40\x02", 2: "\x50\x02"}[qos] + i
		}
		if first&8 != 0 {
			text += " DUP"
		}
		if first&1 != 0 {
			text += " RETAIN"
		}
		payload := string(b)
		if len(payload) > 20 {
			payload = fmt.Sprint(len(payload), " bytes")
		}
		return text + " " + payload, reply, nil
	case 4, 5, 6, 7:
		i := id()
		name := []string{4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP"}[first>>4]
		switch first {
		case 0x50:
			reply = "\x62\x02" + i
		case 0x62:
			reply = "\x70\x02" + i
		}
		return fmt.Sprintf("%s %d", name, num(i)), reply, nil
	case 8:
		i := id()
		text, reply = fmt.Sprintf("SUBSCRIBE %d", num(i)), i
		for len(b) > 0 {
			text += " " + str() + fmt.Sprint(" qos ", b[0])
			reply += string(b[:1])
			b = b[1:]
		}
		return text, "\x90" + string(rune(len(reply))) + reply, nil
	case 10:
		i := id()
		text = fmt.Sprintf("UNSUBSCRIBE %d", num(i))
		for len(b) > 0 {
			text += " " + str()
		}
		return text, "\xb0\x02" + i, nil
	case 12:
		return "PINGREQ", "\xd0\x00", nil
	case 14:
		return "DISCONNECT", "", nil
	}
	return "", "", fmt.Errorf("type %d from a client", first>>4)
}
