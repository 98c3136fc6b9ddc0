package sspcmux

import (
	"encoding/binary"
	"sync/atomic"
)

// The commands.
const (
	cmdRequest  = 0xf0 // channel: open it
	cmdAck      = 0xf1 // channel: opened
	cmdNack     = 0xf2 // channel: refused; of an open channel: closed
	cmdClose    = 0xf3 // channel: close it
	cmdCloseAck = 0xf4 // channel: closed, the number is free
	cmdData     = 0xf5 // channel, length in 16 bits, payload
	cmdPing     = 0xf6 // time
	cmdPong     = 0xf7 // time of the ping, own time or mark
	cmdPongAck  = 0xf8 // wall clock
	cmdReset    = 0xf9 // the line is down
	cmdWindow   = 0xfa // channel, bytes in 32 bits: the peer may send more; not in lws
)

// mark is the second time in a PONG of this package. lws ignores it.
var mark = binary.BigEndian.Uint64([]byte("sspolicy"))

const (
	// maxPayload is such that a data command fits into the 2048 bytes that lws reads at a
	// time.
	maxPayload = 2044
	dataHeader = 4
)

// length returns the size of a command without payload, or 0 if it is unknown.
func length(cmd byte) int {
	switch cmd {
	case cmdReset:
		return 1
	case cmdRequest, cmdAck, cmdNack, cmdClose, cmdCloseAck:
		return 2
	case cmdData:
		return dataHeader
	case cmdWindow:
		return 6
	case cmdPing, cmdPongAck:
		return 9
	case cmdPong:
		return 17
	}
	return 0
}

func windowCommand(n byte, bytes int) []byte {
	return binary.BigEndian.AppendUint32([]byte{cmdWindow, n}, uint32(bytes))
}

// A parser parses the commands of a line.
type parser struct {
	s      *Session
	synced bool // buf begins with a command
	buf    []byte
	ch     byte        // channel of the current data command
	last   byte        // previous command
	rest   int         // bytes of the current data command that have not arrived
	lost   atomic.Bool // the session has lost sync; feed resynchronizes
}

// feed processes bytes from the line.
func (p *parser) feed(b []byte) {
	if p.lost.Swap(false) {
		p.lose()
	}
	for len(b) > 0 {
		if p.rest > 0 {
			n := min(p.rest, len(b))
			p.rest -= n
			p.s.receive(p.ch, b[:n])
			b = b[n:]
			continue
		}
		p.buf = append(p.buf, b[0])
		b = b[1:]
		if !p.synced {
			p.hunt()
		}
		if p.synced {
			p.step()
		}
	}
}

// hunt skips bytes until buf may begin with RESET_TRANSPORT and PING, or with the expected
// PONG.
func (p *parser) hunt() {
	for len(p.buf) > 0 {
		switch {
		case len(p.buf) == 1 && (p.buf[0] == cmdReset || p.buf[0] == cmdPong),
			p.buf[0] == cmdPong && len(p.buf) < 9:
			return
		case p.buf[0] == cmdReset && p.buf[1] == cmdPing:
			p.synced, p.last = true, cmdReset
			p.buf = p.buf[:copy(p.buf, p.buf[1:])]
			p.s.down(errPeerReset)
			return
		case p.buf[0] == cmdPong && p.s.awaits(binary.BigEndian.Uint64(p.buf[1:])):
			p.synced = true
			return
		}
		p.buf = p.buf[:copy(p.buf, p.buf[1:])]
	}
}

// step processes the command in buf if it is complete.
func (p *parser) step() {
	n := length(p.buf[0])
	if n == 0 {
		p.lose()
		p.s.down(errUnknownCommand)
		return
	}
	if len(p.buf) < n {
		return
	}
	cmd, last, body := p.buf[0], p.last, p.buf[1:n]
	p.buf, p.last = p.buf[:0], cmd
	switch cmd {
	case cmdPing, cmdPong, cmdPongAck, cmdReset:
	default:
		if !p.s.isUp() {
			p.lose()
			return
		}
	}
	switch cmd {
	case cmdData:
		p.ch, p.rest = body[0], int(binary.BigEndian.Uint16(body[1:]))
	case cmdPing:
		p.s.pinged(binary.BigEndian.Uint64(body))
	case cmdPong:
		p.s.answered(binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:]) == mark)
	case cmdPongAck:
		p.s.acked()
	case cmdReset:
		if last != cmdReset {
			p.s.down(errPeerReset)
		}
	case cmdWindow:
		p.s.grant(body[0], binary.BigEndian.Uint32(body[1:]))
	default:
		p.s.control(cmd, body[0])
	}
}

// lose makes the parser resynchronize.
func (p *parser) lose() { p.synced, p.rest, p.buf = false, 0, p.buf[:0] }
