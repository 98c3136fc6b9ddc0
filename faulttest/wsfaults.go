package faulttest

import (
	"bufio"
	"cmp"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

var onlyWS = []policy.Protocol{policy.ProtocolWS}

// upgrades returns the function of a fault whose server accepts the handshake and
// then serves the connection itself.
func upgrades(protocol string, serve func(p *peer, c net.Conn)) func(*peer) *behavior {
	return func(p *peer) *behavior {
		return &behavior{conn: func(c net.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			// RFC 6455, section 4.2.2.
			sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
				base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
			if chosen := cmp.Or(protocol, p.HTTP.WSSubprotocol); chosen != "" {
				head += "Sec-WebSocket-Protocol: " + chosen + "\r\n"
			}
			io.WriteString(c, head+"\r\n")
			serve(p, c)
			p.hold(c)
		}}
	}
}

// Faults of WebSocket servers.
var (
	WSRefused = &Fault{
		Name: "ws-refused", Family: "ws", Summary: "The server refuses the WebSocket handshake", Proto: onlyWS,
		Why:    "The token has expired, or a proxy does not know WebSockets.",
		Params: []Param{{Name: "status", Help: "The status of the response.", Default: "403", Min: 400, Max: 599}},
		misbehave: answers(func(p *peer, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			p.strike("the handshake is answered with %d", p.args.int("status"))
			w.WriteHeader(p.args.int("status"))
		}),
		expect: func(s *subject) expectation { return expect(s.user(s.args.int("status")) + unreachable) },
	}
	WSBadSubprotocol = &Fault{
		Name: "ws-bad-subprotocol", Family: "ws", Summary: "The server selects a subprotocol that was not offered", Proto: onlyWS,
		Why: "The server has another version of the protocol. A client must end the connection (RFC 6455, section 4.1).",
		misbehave: upgrades("faulttest-other", func(p *peer, _ net.Conn) {
			p.strike("the server chooses another subprotocol")
		}),
		expect: fails,
	}
	WSClose = &Fault{
		Name: "ws-close", Family: "ws", Summary: "The server closes the connection with a code", Proto: onlyWS,
		Why:    "The server is restarted (1001, 1012) or has failed (1011). All devices lose their connection in the same second.",
		Params: []Param{{Name: "code", Help: "The code of the close frame (RFC 6455, section 7.4).", Default: "1011", Min: 1000, Max: 4999}},
		misbehave: upgrades("", func(p *peer, c net.Conn) {
			p.strike("close frame with %d", p.args.int("code"))
			c.Write(binary.BigEndian.AppendUint16([]byte{0x88, 2}, uint16(p.args.int("code"))))
		}),
		expect: closes,
	}
	WSHalfFrame = &Fault{
		Name: "ws-half-frame", Family: "ws", Summary: "The connection ends in the middle of a frame", Proto: onlyWS,
		Why: "The server crashes while it sends. The client must not treat the received part as the whole message.",
		misbehave: upgrades("", func(p *peer, c net.Conn) {
			p.strike("half a frame")
			fmt.Fprintf(c, "\x81\x64half of the message")
			c.Close()
		}),
		expect: func(*subject) expectation { return expect("CON rx DIS", "CON DIS") },
	}
	WSMute = &Fault{
		Name: "ws-mute", Family: "ws", Summary: "The server accepts the handshake and then says nothing", Proto: onlyWS,
		Why: "A process hangs behind a proxy that still answers. Only the validity check of the policy (svalidping, svalidhup) detects this.",
		misbehave: upgrades("", func(p *peer, _ net.Conn) {
			p.strike("the server is mute from now on")
		}),
		expect: func(s *subject) expectation { return s.stalled("CON") },
	}
	WSBadUTF8 = &Fault{
		Name: "ws-bad-utf8", Family: "ws", Summary: "The server sends a text message that is not UTF-8", Proto: onlyWS,
		Why: "A server sends binary data as text. A client must end the connection with 1007 (RFC 6455, section 8.1).",
		misbehave: upgrades("", func(p *peer, c net.Conn) {
			p.strike("text that is not UTF-8")
			io.WriteString(c, "\x81\x03\xff\xfe\xfd")
		}),
		expect: closes,
	}
)

// closes expects that the server ends each connection after CONNECTED.
func closes(*subject) expectation { return expect("CON DIS") }

var wsFaults = []*Fault{WSRefused, WSBadSubprotocol, WSClose, WSHalfFrame, WSMute, WSBadUTF8}
