package ws

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// A ProtocolError reports that the peer violated the protocol, and that the
// connection was closed for it.
type ProtocolError struct {
	Code int    // of the close frame: 1002, 1007 or 1008
	What string // what the peer did
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("sspolicy: ws: closed with %d: the peer sent %s", e.Code, e.What)
}

func protocolError(format string, args ...any) *ProtocolError {
	return &ProtocolError{int(websocket.StatusProtocolError), fmt.Sprintf(format, args...)}
}

// The errors of invalid messages.
var (
	errUTF8    = &ProtocolError{int(websocket.StatusInvalidFramePayloadData), "text that is not UTF-8"}
	errDeflate = &ProtocolError{int(websocket.StatusInvalidFramePayloadData), "a message that cannot be decompressed"}
)

// Opcodes (RFC 6455 section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

const maxControl = 125

// A checker checks the frames of a peer as they arrive, before the library reads
// them, since the library tolerates some violations of RFC 6455. The zero value
// checks the frames of a server.
type checker struct {
	masked  bool // the peer must mask its frames: it is a client
	deflate bool // permessage-deflate was negotiated

	head   [14]byte // of the current frame
	got    uint8    // bytes in head
	need   uint8    // length of head; known after its second byte
	pos    uint8    // in the mask
	within bool     // between the fragments of a message
	ended  bool     // the latest message is complete
	text   bool     // the message is text that can be checked here
	left   uint64   // bytes of payload to come

	pings atomic.Int32 // unanswered

	utf8 utf8Check  // of the message
	end  closeCheck // of a close frame
	idle budget     // of frames without payload for the program
}

// check checks p, which follows the bytes checked before, up to the end of a
// message. It returns the number of bytes before that end or before the first
// violation.
func (k *checker) check(p []byte) (good int, err *ProtocolError) {
	for i := 0; i < len(p); {
		if k.left == 0 {
			err = k.headByte(p[i])
			i++
		} else {
			n := min(k.left, uint64(len(p)-i))
			var bad int
			if bad, err = k.payload(p[i : i+int(n)]); err != nil {
				return i + bad, err
			}
			k.left -= n
			i += int(n)
		}
		if err == nil && k.left == 0 && k.got == k.need && k.got > 0 {
			err = k.frameEnd()
		}
		if err != nil {
			return i - 1, err
		}
		if k.ended && k.got == 0 {
			return i, nil
		}
	}
	return len(p), nil
}

// headByte adds a byte to the head of a frame.
func (k *checker) headByte(b byte) *ProtocolError {
	k.head[k.got] = b
	k.got++
	switch {
	case k.got == 1:
		return k.first(b)
	case k.got == 2:
		return k.second(b)
	case k.got == k.need:
		return k.length()
	}
	return nil
}

func (k *checker) opcode() byte { return k.head[0] & 0xf }
func (k *checker) fin() bool    { return k.head[0]&0x80 != 0 }

// first checks the first byte of a frame: the flags and the opcode.
func (k *checker) first(b byte) *ProtocolError {
	k.need, k.pos = 0, 0
	op := k.opcode()
	if rsv := b & 0x70; rsv != 0 && !(rsv == 0x40 && k.deflate && (op == opText || op == opBinary)) {
		return protocolError("a frame with reserved bits (%#x)", rsv)
	}
	switch op {
	case opContinuation:
		if !k.within {
			return protocolError("a continuation without a message")
		}
	case opText, opBinary:
		if k.within {
			return protocolError("a message inside of another one")
		}
		k.text = op == opText && b&0x40 == 0
		k.utf8 = utf8Check{}
	case opClose, opPing, opPong:
		if !k.fin() {
			return protocolError("a fragmented control frame")
		}
		k.end = closeCheck{}
		return nil
	default:
		return protocolError("a frame with opcode %d", op)
	}
	k.within, k.ended = !k.fin(), false
	return nil
}

// second checks the second byte of a frame: the mask flag and the short length.
func (k *checker) second(b byte) *ProtocolError {
	k.need = 2
	switch masked := b&0x80 != 0; {
	case masked && !k.masked:
		return protocolError("a masked frame")
	case !masked && k.masked:
		return protocolError("a frame without a mask")
	case masked:
		k.need += 4
	}
	n := b & 0x7f
	switch {
	case n > maxControl && k.opcode() >= opClose:
		return protocolError("a control frame of more than %d bytes", maxControl)
	case n == 126:
		k.need += 2
	case n == 127:
		k.need += 8
	}
	if k.need == 2 {
		return k.length()
	}
	return nil
}

// length checks the length of a frame, when its head is complete.
func (k *checker) length() *ProtocolError {
	n, least := uint64(k.head[1]&0x7f), uint64(0)
	switch n {
	case 126:
		n, least = uint64(binary.BigEndian.Uint16(k.head[2:])), 126
	case 127:
		n, least = binary.BigEndian.Uint64(k.head[2:]), 1<<16
	}
	switch {
	case n < least:
		return protocolError("a length of %d that is not in its shortest form", n)
	case n > 1<<63-1:
		return protocolError("a length of more than 63 bits")
	case k.opcode() >= opClose || n == 0 && !k.fin():
		if !k.answer() && !k.idle.spend() {
			return &ProtocolError{int(websocket.StatusPolicyViolation), "too many control frames or empty fragments"}
		}
	}
	k.left = n
	return nil
}

// answer reports whether the frame answers a PING.
func (k *checker) answer() bool {
	return k.opcode() == opPong && k.pings.Load() > 0 && k.pings.Add(-1) >= 0
}

// payload checks part of the payload of a frame. On error, bad is the number of
// bytes before the violation.
func (k *checker) payload(p []byte) (bad int, err *ProtocolError) {
	if op := k.opcode(); op != opClose && (op > opClose || !k.text) {
		return 0, nil
	}
	if !k.masked {
		return k.clear(p)
	}
	var buf [512]byte
	for i := 0; i < len(p); {
		n := copy(buf[:], p[i:])
		k.unmask(buf[:n])
		if bad, err := k.clear(buf[:n]); err != nil {
			return i + bad, err
		}
		i += n
	}
	return 0, nil
}

// unmask unmasks the next bytes of a frame (RFC 6455 section 5.3).
func (k *checker) unmask(p []byte) {
	key := k.head[k.need-4 : k.need]
	for i := range p {
		p[i] ^= key[k.pos%4]
		k.pos++
	}
}

// clear checks unmasked payload.
func (k *checker) clear(p []byte) (bad int, err *ProtocolError) {
	if k.opcode() == opClose {
		return k.end.add(p)
	}
	if n := k.utf8.add(p); n < len(p) {
		return n, errUTF8
	}
	return 0, nil
}

// frameEnd checks a complete frame.
func (k *checker) frameEnd() *ProtocolError {
	k.got = 0
	k.ended = k.ended || k.opcode() < opClose && k.fin()
	switch op := k.opcode(); {
	case op == opClose:
		return k.end.finish()
	case op < opClose && k.fin() && k.text && !k.utf8.complete():
		return errUTF8
	}
	return nil
}

// A closeCheck checks the payload of a close frame (RFC 6455 section 5.5.1).
type closeCheck struct {
	n      uint8 // at most maxControl
	code   [2]byte
	reason utf8Check
}

func (c *closeCheck) add(p []byte) (bad int, err *ProtocolError) {
	n := copy(c.code[min(c.n, 2):], p)
	c.n += uint8(len(p))
	if n > 0 && c.n >= 2 {
		if code := binary.BigEndian.Uint16(c.code[:]); !validCode(code) {
			return n - 1, protocolError("a close frame with the code %d", code)
		}
	}
	if good := c.reason.add(p[n:]); good < len(p)-n {
		return n + good, errUTF8
	}
	return 0, nil
}

func (c *closeCheck) finish() *ProtocolError {
	switch {
	case c.n == 1:
		return protocolError("a close frame with half a code")
	case !c.reason.complete():
		return errUTF8
	}
	return nil
}

// validCode reports whether a close frame may have the code (RFC 6455 section 7.4,
// and the codes that IANA has registered since).
func validCode(code uint16) bool {
	switch code {
	case 1004, 1005, 1006:
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}

// A utf8Check checks UTF-8 that arrives in pieces.
type utf8Check struct {
	tail [utf8.UTFMax]byte // of an incomplete rune
	n    uint8
}

// add returns the number of bytes of p before the first one that cannot be part of
// UTF-8.
func (u *utf8Check) add(p []byte) (good int) {
	i := 0
	for ; u.n > 0 && i < len(p); i++ {
		u.tail[u.n] = p[i]
		u.n++
		if utf8.FullRune(u.tail[:u.n]) {
			if r, size := utf8.DecodeRune(u.tail[:u.n]); r == utf8.RuneError && size == 1 {
				return i
			}
			u.n = 0
		}
	}
	end := len(p)
	for j := end - 1; j >= max(i, end-utf8.UTFMax+1); j-- {
		if utf8.RuneStart(p[j]) {
			if !utf8.FullRune(p[j:]) {
				end = j
			}
			break
		}
	}
	if !utf8.Valid(p[i:end]) {
		for {
			r, size := utf8.DecodeRune(p[i:end])
			if r == utf8.RuneError && size == 1 {
				return badByte(p, i)
			}
			i += size
		}
	}
	if end < len(p) {
		u.n = uint8(copy(u.tail[:], p[end:]))
	}
	return len(p)
}

// badByte returns the index of the byte that makes the sequence at p[i:] invalid.
func badByte(p []byte, i int) int {
	j := i + 1
	for j < len(p) && !utf8.FullRune(p[i:j]) {
		j++
	}
	return j - 1
}

// complete reports whether the text may end here.
func (u *utf8Check) complete() bool { return u.n == 0 }

// A budget limits how many frames without payload for the program a peer may send.
// Each costs about as much as a message, but the program cannot react to them.
type budget struct {
	used  int
	since time.Time
}

const (
	idleFrames = 4096
	idleWindow = 40 * time.Second
)

// spend reports whether another frame is within the budget: idleFrames per
// idleWindow.
func (b *budget) spend() bool {
	if b.used++; b.used > 1 && b.used <= idleFrames {
		return true
	}
	now := time.Now() // only rarely: it costs more than the rest of the check
	if b.used > 1 && now.Sub(b.since) < idleWindow {
		return false
	}
	b.used, b.since = 1, now
	return true
}
