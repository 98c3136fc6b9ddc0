package ws_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// frame returns a frame of a server with the given first byte.
func frame(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + payload
}

// fragments returns a text message in frames of n bytes.
func fragments(payload string, n int) string {
	var b strings.Builder
	op := byte(0x01)
	for len(payload) > n {
		b.WriteString(frame(op, payload[:n]))
		op, payload = 0, payload[n:]
	}
	b.WriteString(frame(op|0x80, payload))
	return b.String()
}

func closeFrame(code uint16, reason string) string {
	return frame(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// readFrame reads a frame of a client. A frame without a mask is an error.
func readFrame(r *bufio.Reader) (first byte, payload string, err error) {
	var h [8]byte
	if _, err := io.ReadFull(r, h[:2]); err != nil {
		return 0, "", err
	}
	first = h[0]
	if h[1]&0x80 == 0 {
		return 0, "", fmt.Errorf("a frame without a mask")
	}
	n := uint64(h[1] & 0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(r, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:2]))
	case 127:
		_, err = io.ReadFull(r, h[:8])
		n = binary.BigEndian.Uint64(h[:8])
	}
	if err != nil {
		return 0, "", err
	}
	b := make([]byte, 4+n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, "", err
	}
	for i := range n {
		b[4+i] ^= b[i&3]
	}
	return first, string(b[4:]), nil
}

// readAll reads frames of a client until it closes, and returns a description:
// messages are joined, long ones appear as their length, PINGs are omitted. It
// calls progress with the description so far.
func readAll(r *bufio.Reader, progress func(got string)) string {
	var got []string
	msg, open := "", false
	for {
		progress(strings.Join(got, " "))
		first, payload, err := readFrame(r)
		if err != nil {
			if err != io.EOF {
				got = append(got, err.Error())
			}
			return strings.Join(got, " ")
		}
		text := payload
		if len(text) > 200 {
			text = fmt.Sprint("#", len(text))
		}
		switch first {
		case 0x01, 0x00, 0x80, 0x81:
			if open == (first&1 == 1) {
				got = append(got, "bad fragments")
			}
			msg, open = msg+payload, true
			if first&0x80 != 0 {
				if len(msg) > 200 {
					msg = fmt.Sprint("#", len(msg))
				}
				got = append(got, "text("+msg+")")
				msg, open = "", false
			}
		case 0x88:
			if len(payload) >= 2 {
				got = append(got, fmt.Sprintf("close(%d %s)", binary.BigEndian.Uint16([]byte(payload)), payload[2:]))
			} else {
				got = append(got, "close()")
			}
			return strings.Join(got, " ")
		case 0x89:
		case 0x8a:
			got = append(got, "pong("+text+")")
		default:
			got = append(got, fmt.Sprintf("frame %x", first))
		}
	}
}

// echoHandlers returns handlers that echo each piece.
func echoHandlers() runtime.Handlers {
	type piece struct {
		text  string
		flags policy.Flags
	}
	var queue []piece // without a lock, since callbacks do not overlap
	return runtime.Handlers{
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			queue = append(queue, piece{string(buf), flags})
			s.RequestTx()
			return policy.OK
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
			for len(queue) > 0 {
				p := queue[0]
				queue = queue[1:]
				if len(p.text) == 0 && p.flags == 0 {
					continue
				}
				if len(queue) > 0 {
					s.RequestTx()
				}
				return copy(buf, p.text), p.flags, policy.OK
			}
			return 0, 0, policy.TxDontSend
		},
	}
}

// invalidUTF8 are texts that are not UTF-8: bytes that never occur, surrogates,
// overlong forms, code points above U+10FFFF, sequences that end early, and
// continuations of nothing.
var invalidUTF8 = []string{
	"\xff", "\xfe", "a\xc0\x80", "\xe0\x80\xaf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
	"\xf8\x88\x80\x80\x80", "\xce", "\xe1\xbd", "\xf0\x9f\x98", "κόσ\xce", "\x80", "κ\xbf",
	"κόσμε\xed\xa0\x80edited", "\xce\xce\xba",
}

// TestFrames sends frames to a stream that echoes, in the groups of the Autobahn test
// suite.
func TestFrames(t *testing.T) {
	type row struct {
		name, send, want string
		errors           bool // want is the end
		bye              bool // the server closes after it has received want
	}
	long := strings.Repeat("0123456789", 6554)
	var rows []row
	good := func(name, send, want string) { rows = append(rows, row{name: name, send: send, want: want, bye: true}) }
	bad := func(name, send string) {
		rows = append(rows, row{name: name, send: send, want: "close(1002", errors: true})
	}

	for _, n := range []int{0, 1, 125, 126, 127, 128, 4096, 65535, 65536} {
		text := long[:min(n, len(long))]
		want := text
		if n > 200 {
			want = fmt.Sprint("#", len(text))
		}
		good(fmt.Sprint("1 text of ", n), frame(0x81, text), "text("+want+")")
		good(fmt.Sprint("1 binary of ", n), frame(0x82, text), "text("+want+")") // the policy sets the type
		good(fmt.Sprint("10 text of ", n, " in fragments"), fragments(text, 1300), "text("+want+")")
	}
	good("2 empty ping", frame(0x89, ""), "pong()")
	good("2 ping", frame(0x89, "hello"), "pong(hello)")
	good("2 long ping", frame(0x89, long[:125]), "pong("+long[:125]+")")
	good("2 unrequested pong", frame(0x8a, "hello"), "")
	good("2 ten pings", strings.Repeat(frame(0x89, "x"), 10), strings.TrimSpace(strings.Repeat("pong(x) ", 10)))
	bad("2 too long a ping", frame(0x89, long[:126]))
	for _, rsv := range []byte{0x10, 0x20, 0x40, 0x70} {
		bad(fmt.Sprintf("3 text with reserved %x", rsv), frame(0x81|rsv, "x"))
		bad(fmt.Sprintf("3 ping with reserved %x", rsv), frame(0x89|rsv, "x"))
		bad(fmt.Sprintf("3 close with reserved %x", rsv), frame(0x88|rsv, ""))
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		bad(fmt.Sprint("4 opcode ", op), frame(0x80|op, "x"))
	}
	bad("5 ping in fragments", frame(0x09, "x")+frame(0x80, "y"))
	bad("5 pong in fragments", frame(0x0a, "x")+frame(0x80, "y"))
	good("5 two fragments", frame(0x01, "a")+frame(0x80, "b"), "text(ab)")
	good("5 empty fragments", frame(0x01, "")+frame(0x00, "")+frame(0x80, ""), "text()")
	good("5 an empty last fragment", frame(0x01, "a")+frame(0x80, ""), "text(a)")
	bad("5 continuation of nothing", frame(0x80, "x"))
	bad("5 continuation of a whole message", frame(0x81, "x")+frame(0x80, "y"))
	bad("5 message in a message", frame(0x01, "x")+frame(0x81, "y"))
	good("6 UTF-8", frame(0x81, "κόσμε"), "text(κόσμε)")
	good("6 a letter in two fragments", frame(0x01, "\xce")+frame(0x80, "\xba"), "text(κ)")
	for _, text := range invalidUTF8 {
		row := row{name: fmt.Sprintf("6 invalid UTF-8 %x", text), send: frame(0x81, text), want: "close(1007", errors: true}
		rows = append(rows, row)
		for i := 1; i < len(text); i++ {
			row.name = fmt.Sprintf("6 invalid UTF-8 %x, in fragments at %d", text, i)
			row.send = frame(0x01, text[:i]) + frame(0x89, "") + frame(0x80, text[i:])
			rows = append(rows, row)
		}
		row.name, row.send = fmt.Sprintf("7 close with the reason %x", text), closeFrame(1000, text)
		rows = append(rows, row)
	}
	good("6 invalid UTF-8 as binary", frame(0x82, "\xff"), "text(\xff)")
	for _, first := range []byte{0x81, 0x82, 0x01, 0x89, 0x8a, 0x88} {
		bad(fmt.Sprintf("masked %x", first), string([]byte{first, 0x82, 0, 0, 0, 0})+"\x03\xe8")
	}
	bad("a length in 16 bits that fits 7", "\x82\x7e\x00\x05hello")
	bad("a length in 64 bits that fits 16", "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff"+long[:65535])
	bad("a length of 64 bits", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00")
	rows = append(rows,
		row{"7 close", frame(0x88, ""), "close()", false, false},
		row{"7 close with a reason", closeFrame(1000, "bye"), "close(1000 bye)", false, false},
		row{"7 close with a long reason", closeFrame(1000, long[:123]), "close(1000 " + long[:123] + ")", false, false},
		row{"7 frames after close", closeFrame(1000, "") + frame(0x89, "x") + frame(0x81, "y"), "close(1000 )", false, false})
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		rows = append(rows, row{fmt.Sprint("7 code ", code), closeFrame(code, ""), fmt.Sprintf("close(%d )", code), false, false})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		bad(fmt.Sprint("7 code ", code), closeFrame(code, ""))
	}
	bad("7 half a code", frame(0x88, "x"))
	bad("7 too long a close", frame(0x88, long[:126]))
	mega := strings.Repeat(long, 65)[:4<<20]
	good("9 4 MB", frame(0x81, mega), fmt.Sprintf("text(#%d)", len(mega)))
	good("9 4 MB in fragments", fragments(mega, 64<<10), fmt.Sprintf("text(#%d)", len(mega)))
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			// The first byte is sent with the response, the others later.
			addr := testserver.ServeTCP(t, func(c net.Conn) {
				r, _, err := upgrade(c, "", tt.send[:1])
				if err != nil {
					return
				}
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					io.WriteString(c, tt.send[1:])
				}()
				c.SetReadDeadline(time.Now().Add(20 * time.Second))
				got <- readAll(r, func(got string) {
					if tt.bye && got == tt.want {
						<-sent
						io.WriteString(c, closeFrame(1000, ""))
					}
				})
			})
			h := echoHandlers()
			h.State = func(s *runtime.Stream, state policy.State, _ uint32) policy.Result {
				if state == policy.StateCreating {
					s.RequestTx()
				}
				return policy.OK
			}
			if _, err := newContext(t, policy.StreamType{Opportunistic: true}, addr, runtime.Options{}).NewStream("s", h); err != nil {
				t.Fatal(err)
			}
			g := <-got
			if tt.errors {
				if i := strings.LastIndex(g, "close("); i < 0 || !strings.HasPrefix(g[i:], tt.want) {
					t.Errorf("the peer got %q", g)
				}
				return
			}
			want := tt.want
			if tt.bye {
				want = strings.TrimSpace(want + " close(1000 )")
			}
			if g != want {
				t.Errorf("the peer got %q, want %q", g, want)
			}
		})
	}
}

// TestCut ends the connection after each byte of a message, and checks that a part is never
// treated as the whole.
func TestCut(t *testing.T) {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	io.WriteString(w, strings.Repeat("hello, hello, hallo ", 10))
	w.Flush()
	compressed := strings.TrimSuffix(b.String(), "\x00\x00\xff\xff") // RFC 7692 section 7.2.1
	for _, tt := range []struct {
		name, headers, message string
	}{
		{"one frame", "", frame(0x81, "hello")},
		{"fragments", "", fragments("hello, world", 4)},
		{"compressed", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n", frame(0xc1, compressed)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n := range len(tt.message) + 1 {
				addr := testserver.ServeTCP(t, func(c net.Conn) { upgrade(c, tt.headers, tt.message[:n]) })
				tr := newTrace(nil)
				o := runtime.Options{}
				if tt.headers != "" {
					o.Transports = []transport.Transport{ws.New(ws.WithDeflate())}
				}
				_, s := newStream(t, policy.StreamType{Opportunistic: true}, addr, tr, o)
				s.RequestTx()
				tr.AwaitEnd(t, "DIS", "ARF")
				if whole := strings.Contains(tr.String(), ">"); whole != (n == len(tt.message)) || !strings.HasPrefix(tr.String(), "CRE POL CNG CON") {
					t.Errorf("%d of %d bytes: %s", n, len(tt.message), tr)
				}
				if !errors.Is(s.Err(), io.ErrUnexpectedEOF) {
					t.Errorf("%d of %d bytes: Err returns %v", n, len(tt.message), s.Err())
				}
			}
		})
	}
}
