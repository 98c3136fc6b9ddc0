package ws_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestConformance checks the sequences of docs/runtime.md.
func TestConformance(t *testing.T) {
	own, other := testcert.New("own"), testcert.New("other")
	greet := func(messages ...string) func(*websocket.Conn) {
		return func(c *websocket.Conn) {
			for _, m := range messages {
				c.Write(context.Background(), websocket.MessageText, []byte(m))
			}
			c.Read(context.Background())
		}
	}
	closing := func(code websocket.StatusCode, reason string) func(*websocket.Conn) {
		return func(c *websocket.Conn) { c.Close(code, reason) }
	}
	drop := func(c net.Conn) { upgrade(c, "", "\x81\x02hi") }
	reset := func(c net.Conn) {
		upgrade(c, "", "\x81\x05hi")
		c.(*net.TCPConn).SetLinger(0)
	}
	opportunistic := policy.StreamType{Opportunistic: true, Retry: teststream.Retry(2)}
	conceal1 := policy.StreamType{Opportunistic: true, Retry: teststream.Retry(1)}
	nailed := policy.StreamType{NailedUp: true, Retry: teststream.Retry(2)}
	secure := policy.StreamType{Opportunistic: true, Retry: teststream.Retry(0), TLS: true, TrustStore: own.Store()}
	const unreachable = "CRE POL CNG UNR POL CNG UNR POL CNG UNR ARF"
	isClose := func(code int, reason string) func(error) bool {
		return func(err error) bool {
			e, ok := errors.AsType[*ws.CloseError](err)
			return ok && e.Code == code && e.Reason == reason
		}
	}
	status := func(code int) func(error) bool {
		return func(err error) bool {
			e, ok := errors.AsType[*ws.StatusError](err)
			return ok && e.Code == code
		}
	}
	answer := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, text)
		}
	}
	isTrust := func(err error) bool { return err != nil && strings.Contains(err.Error(), "tls: ") }
	for _, tt := range []struct {
		name   string
		st     policy.StreamType
		server func(*websocket.Conn)
		conn   func(net.Conn)
		tls    *testcert.Authority
		on     teststream.Actions
		tx     func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result)
		until  []string // the events at the end; nil means DIS or ARF
		want   string
		cause  func(error) bool
	}{
		{name: "peer closes, opportunistic", st: opportunistic, server: closing(4000, "enough"),
			want: "CRE POL CNG CON DIS", cause: isClose(4000, "enough")},
		{name: "peer closes, by connect", st: opportunistic, server: closing(1000, ""), on: teststream.Actions{"CRE": teststream.Connect},
			want: "CRE CNG CON DIS", cause: isClose(1000, "")},
		{name: "peer closes, not opportunistic", st: policy.StreamType{Retry: teststream.Retry(2)}, server: closing(1001, ""),
			want: "CRE POL CNG CON DIS POL CNG CON DIS POL CNG CON DIS UNR ARF"},
		{name: "peer closes, not opportunistic, no retry", st: policy.StreamType{}, server: closing(1001, ""),
			want: "CRE POL CNG CON DIS UNR ARF"},
		{name: "nailed up", st: nailed, server: greet("a"), on: teststream.Actions{"CRE": nil, "<a>": teststream.Destroy}, until: []string{"DES"},
			want: "CRE CNG CON <a> DIS DES"},
		{name: "messages", st: opportunistic, server: greet("hello", "", "world"), on: teststream.Actions{"<world>": teststream.Disconnect},
			want: "CRE POL CNG CON <hello> <> <world> DIS"},
		{name: "echo", st: opportunistic, server: echo, tx: send("one", "", "t|w|o", "|"), on: teststream.Actions{"<two>": nil},
			until: []string{"<> <two> <>"}, want: "CRE POL CNG CON <one> <> <two> <>"},
		{name: "large message", st: opportunistic, server: greet(strings.Repeat("x", 40000)), on: teststream.Actions{"7232>": teststream.Disconnect},
			want: "CRE POL CNG CON <16384 16384 7232> DIS"},
		{name: "message that is a whole number of pieces", st: opportunistic, server: greet(strings.Repeat("x", 32768)),
			on: teststream.Actions{"16384>": teststream.Disconnect}, want: "CRE POL CNG CON <16384 16384> DIS"},
		{name: "disconnect when connected", st: opportunistic, server: greet(), on: teststream.Actions{"CON": teststream.Disconnect},
			want: "CRE POL CNG CON DIS", cause: func(err error) bool { return errors.Is(err, transport.ErrDisconnected) }},
		{name: "destroy when connected", st: opportunistic, server: greet(), on: teststream.Actions{"CON": teststream.Destroy}, until: []string{"DES"},
			want: "CRE POL CNG CON DIS DES"},
		{name: "gone without a close frame", st: opportunistic, conn: drop, want: "CRE POL CNG CON <hi> DIS",
			cause: func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) }},
		{name: "reset in a message", st: opportunistic, conn: reset, want: "CRE POL CNG CON <hi DIS"},

		{name: "no ws", st: opportunistic, conn: answer("HTTP/1.1 200 OK\r\n\r\n"), want: unreachable, cause: status(200)},
		{name: "not found", st: conceal1, conn: answer("HTTP/1.1 404 Not Found\r\n\r\n"),
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: status(404)},
		{name: "mapped status", st: policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{RespMap: []policy.StatusState{{Status: 401, State: 1401}}}},
			conn: answer("HTTP/1.1 401 Unauthorized\r\n\r\n"), want: "CRE POL CNG USER_1401 UNR ARF", cause: status(401)},
		{name: "mapped 101", st: policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{RespMap: []policy.StatusState{{Status: 101, State: 1101}}}},
			server: closing(1000, ""), want: "CRE POL CNG USER_1101 CON DIS"},
		{name: "503", st: conceal1, conn: answer("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n\r\n"),
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: status(503)},
		{name: "early hints", st: opportunistic, conn: func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
			upgrade(c, "", "\x81\x00\x88\x00")
		}, want: "CRE POL CNG CON <> DIS", cause: isClose(1005, "")},
		{name: "hints without end", st: policy.StreamType{Opportunistic: true}, conn: answer(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100)),
			want: "CRE POL CNG UNR ARF"},
		{name: "headers without end", st: policy.StreamType{Opportunistic: true}, conn: func(c net.Conn) {
			answer("HTTP/1.1 101 Switching Protocols\r\n")(c)
			for {
				if _, err := io.WriteString(c, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, want: "CRE POL CNG UNR ARF", cause: func(err error) bool { return strings.Contains(err.Error(), "too long") }},
		{name: "wrong accept", st: policy.StreamType{Opportunistic: true}, conn: answer("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"),
			want: "CRE POL CNG UNR ARF", cause: func(err error) bool { return strings.Contains(err.Error(), "Sec-WebSocket-Accept") }},
		{name: "no upgrade", st: policy.StreamType{Opportunistic: true}, conn: answer("HTTP/1.1 101 x\r\n\r\n"), want: "CRE POL CNG UNR ARF"},
		{name: "another subprotocol", st: policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{WSSubprotocol: "mine"}},
			conn: func(c net.Conn) { upgrade(c, "Sec-WebSocket-Protocol: yours\r\n", "") }, want: "CRE POL CNG UNR ARF"},
		{name: "an unrequested subprotocol", st: policy.StreamType{Opportunistic: true},
			conn: func(c net.Conn) { upgrade(c, "Sec-WebSocket-Protocol: yours\r\n", "") }, want: "CRE POL CNG UNR ARF"},
		{name: "no subprotocol", st: policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{WSSubprotocol: "mine"}},
			conn: func(c net.Conn) { upgrade(c, "", "\x88\x00") }, want: "CRE POL CNG CON DIS"},
		{name: "an unrequested extension", st: policy.StreamType{Opportunistic: true},
			conn: func(c net.Conn) { upgrade(c, "Sec-WebSocket-Extensions: permessage-deflate\r\n", "") }, want: "CRE POL CNG UNR ARF"},
		{name: "no HTTP", st: policy.StreamType{Opportunistic: true}, conn: answer("hello\r\n\r\n"), want: "CRE POL CNG UNR ARF"},
		{name: "closed before the answer", st: opportunistic, conn: func(c net.Conn) { c.Read(make([]byte, 1)) }, want: unreachable},
		{name: "redirect not allowed", st: conceal1, conn: answer("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"),
			want: "CRE POL CNG UNR POL CNG UNR ARF", cause: func(err error) bool { _, ok := errors.AsType[*ws.RedirectError](err); return ok }},
		{name: "redirect for ever", st: policy.StreamType{Opportunistic: true, HTTP: &policy.HTTP{AllowRedirects: true}},
			conn: answer("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"), want: "CRE POL CNG UNR ARF",
			cause: func(err error) bool {
				e, ok := errors.AsType[*ws.RedirectError](err)
				return ok && strings.Contains(e.Reason, "too many")
			}},

		{name: "TLS", st: secure, server: closing(1000, ""), tls: own, want: "CRE POL CNG CON DIS"},
		{name: "TLS, another's", st: secure, server: closing(1000, ""), tls: other, want: "CRE POL CNG UNR ARF", cause: isTrust},
		{name: "TLS to a plain port", st: secure, server: closing(1000, ""), want: "CRE POL CNG UNR ARF"},
		{name: "plain to a TLS port", st: policy.StreamType{Opportunistic: true}, server: closing(1000, ""), tls: own, want: "CRE POL CNG UNR ARF"},

		{name: "a message without its start", st: opportunistic, server: greet(), on: teststream.Actions{"CON": teststream.RequestTx},
			tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
				return copy(buf, "x"), policy.FlagEOM, policy.OK
			}, want: "CRE POL CNG CON DIS", cause: func(err error) bool { return strings.Contains(err.Error(), "without FlagSOM") }},
		{name: "a message inside a message", st: opportunistic, server: greet(), on: teststream.Actions{"CON": teststream.RequestTx},
			tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
				return copy(buf, "x"), policy.FlagSOM, policy.OK
			}, want: "CRE POL CNG CON DIS", cause: func(err error) bool { return strings.Contains(err.Error(), "inside a message") }},
		{name: "Tx disconnects", st: opportunistic, server: greet(), on: teststream.Actions{"CON": teststream.RequestTx},
			tx: func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
				return 0, 0, policy.DisconnectMe
			}, want: "CRE POL CNG CON DIS", cause: func(err error) bool { return errors.Is(err, transport.ErrDisconnected) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr := testserver.Refused(t)
			switch {
			case tt.server != nil && tt.tls != nil:
				addr = serveWS(t, tt.tls.Server([]string{"http/1.1"}, "127.0.0.1"), tt.server)
			case tt.server != nil:
				addr = serveWS(t, nil, tt.server)
			case tt.conn != nil:
				addr = testserver.ServeTCP(t, tt.conn)
			}
			tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
			tr.tx = tt.tx
			for k, f := range tt.on {
				tr.On[k] = f
			}
			_, s := newStream(t, tt.st, addr, tr, runtime.Options{})
			until := tt.until
			if until == nil {
				until = []string{" DIS", " ARF"}
				if strings.HasSuffix(tt.want, " ARF") {
					until = []string{" ARF"}
				}
			}
			tr.AwaitEnd(t, until...)
			if got := tr.String(); got != tt.want && (tt.until == nil || !strings.HasPrefix(got, tt.want)) {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if err := s.Err(); tt.cause != nil && (err == nil || !tt.cause(err)) {
				t.Errorf("Err returns %v", err)
			}
		})
	}
}

// TestRetryAfter checks the wait after a Retry-After header.
func TestRetryAfter(t *testing.T) {
	addr := testserver.ServeTCP(t, func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\n")
	})
	waits := make(chan time.Duration, 10)
	tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
	newStream(t, policy.StreamType{Opportunistic: true, Retry: teststream.Retry(2)}, addr, tr, runtime.Options{
		Hooks: runtime.Hooks{Wait: func(_ context.Context, _ *runtime.Stream, d time.Duration) { waits <- d }},
	})
	if d := <-waits; d != 7*time.Second {
		t.Errorf("the wait is %v", d)
	}
}
