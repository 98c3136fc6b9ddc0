package ws_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// A trace records the events of a stream and provides its payload.
type trace struct {
	teststream.Trace
	tx func(s *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result)
}

func newTrace(on teststream.Actions) *trace {
	tr := new(trace)
	tr.On = on
	return tr
}

// handlers returns handlers that record states, and each piece as its text, or its
// length if it is long, between "<" for FlagSOM and ">" for FlagEOM.
func (tr *trace) handlers() runtime.Handlers {
	return runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			text := string(buf)
			if len(text) > 16 {
				text = fmt.Sprint(len(text))
			}
			if flags&policy.FlagSOM != 0 {
				text = "<" + text
			}
			if flags&policy.FlagEOM != 0 {
				text += ">"
			}
			return tr.Note(s, text)
		},
		Tx: tr.tx,
	}
}

// send returns a Tx that sends messages, each in pieces separated by "|".
func send(messages ...string) func(*runtime.Stream, uint32, []byte) (int, policy.Flags, policy.Result) {
	var pieces []string
	var flags []policy.Flags
	for _, m := range messages {
		all := strings.Split(m, "|")
		for i, p := range all {
			var f policy.Flags
			if i == 0 {
				f |= policy.FlagSOM
			}
			if i == len(all)-1 {
				f |= policy.FlagEOM
			}
			pieces, flags = append(pieces, p), append(flags, f)
		}
	}
	return func(s *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		if len(pieces) == 0 {
			return 0, 0, policy.TxDontSend
		}
		n, f := copy(buf, pieces[0]), flags[0]
		pieces, flags = pieces[1:], flags[1:]
		s.RequestTx()
		return n, f, policy.OK
	}
}

// serve runs an HTTP server, over TLS if config is not nil, and returns its address.
func serve(t testing.TB, config *tls.Config, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	ln := testserver.Listen(t)
	serveOn(t, ln, config, h)
	return testserver.Addr(ln)
}

func serveOn(t testing.TB, ln net.Listener, config *tls.Config, h http.HandlerFunc) {
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	testserver.HTTP(t, ln, &http.Server{Handler: h})
}

// serveWS is serve, with a handler that upgrades with the library, calls f with the
// connection, and closes it.
func serveWS(t testing.TB, config *tls.Config, f func(*websocket.Conn)) netip.AddrPort {
	t.Helper()
	return serve(t, config, accept(f))
}

func accept(f func(*websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		f(c)
	}
}

// echo echoes messages until the client closes.
func echo(c *websocket.Conn) {
	for {
		kind, msg, err := c.Read(context.Background())
		if err != nil || c.Write(context.Background(), kind, msg) != nil {
			return
		}
	}
}

// acceptKey returns the Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// upgrade answers the handshake of a client, with additional headers, and sends
// behind with the response.
func upgrade(c net.Conn, headers, behind string) (*bufio.Reader, *http.Request, error) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return nil, nil, err
	}
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s\r\n%s",
		acceptKey(req.Header.Get("Sec-WebSocket-Key")), headers, behind)
	return r, req, err
}

// newContext returns a context with one streamtype, "s".
func newContext(t testing.TB, st policy.StreamType, addr netip.AddrPort, o runtime.Options) *runtime.Context {
	t.Helper()
	st.Name, st.Protocol = "s", policy.ProtocolWS
	if st.Endpoint == "" {
		st.Endpoint = addr.Addr().String()
	}
	if st.Port == 0 {
		st.Port = addr.Port()
	}
	if st.HTTP == nil {
		st.HTTP = new(policy.HTTP)
	}
	if o.Transports == nil {
		o.Transports = []transport.Transport{ws.New()}
	}
	o.Logger = slog.New(slog.DiscardHandler)
	return teststream.NewContext(t, o, &st)
}

// newStream returns a stream that records its events in tr, and its context.
func newStream(t testing.TB, st policy.StreamType, addr netip.AddrPort, tr *trace, o runtime.Options) (*runtime.Context, *runtime.Stream) {
	t.Helper()
	c := newContext(t, st, addr, o)
	s, err := c.NewStream("s", tr.handlers())
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// silent reads the request and does not answer until hold is closed.
func silent(hold <-chan struct{}) func(net.Conn) {
	return func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		<-hold
	}
}
