package ws_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// A trace records what a stream tells its handlers.
type trace struct {
	teststream.Trace
	on map[string]func(*runtime.Stream) policy.Result
	tx func(s *runtime.Stream, ordinal uint32, buf []byte) (int, policy.Flags, policy.Result)
}

type on = map[string]func(*runtime.Stream) policy.Result

func (tr *trace) handlers() runtime.Handlers {
	tr.On = tr.on
	return runtime.Handlers{
		State: tr.State,
		Rx: func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
			text := string(buf)
			if len(text) > 16 {
				text = fmt.Sprint(len(text))
			}
			for f, name := range map[policy.Flags]string{policy.FlagSOM: "<", policy.FlagEOM: ">"} {
				if flags&f == 0 {
					continue
				}
				if name == "<" {
					text = name + text
				} else {
					text += name
				}
			}
			return tr.Note(s, text)
		},
		Tx: tr.tx,
	}
}

// send is a Tx that sends these messages, each as the pieces given. "|" ends a
// piece, a piece is sent whenever Tx is asked for one.
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

func listen(t testing.TB) (net.Listener, netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln, ln.Addr().(*net.TCPAddr).AddrPort()
}

// serve runs an HTTP server, over TLS if config is not nil.
func serve(t testing.TB, ln net.Listener, config *tls.Config, h http.HandlerFunc) {
	t.Helper()
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	var wg sync.WaitGroup
	hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		h(w, r)
	}), ErrorLog: log.New(io.Discard, "", 0)}
	t.Cleanup(func() { hs.Close(); wg.Wait() })
	go hs.Serve(ln)
}

// accepted returns the address of a server that upgrades by the library, with
// its own end of it, and hands the connection to f.
func accepted(t testing.TB, config *tls.Config, o *websocket.AcceptOptions, f func(*websocket.Conn)) netip.AddrPort {
	t.Helper()
	ln, addr := listen(t)
	serve(t, ln, config, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, o)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		f(c)
	})
	return addr
}

// echo sends back what comes, until the client closes.
func echo(c *websocket.Conn) {
	for {
		kind, msg, err := c.Read(context.Background())
		if err != nil || c.Write(context.Background(), kind, msg) != nil {
			return
		}
	}
}

// raw runs a server of connections that f does all of.
func raw(t testing.TB, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, addr := listen(t)
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c) })
		}
	})
	return addr
}

// acceptKey is the answer to a Sec-WebSocket-Key (RFC 6455 section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// upgrade answers the handshake of a client, with more headers if any, and
// sends what is to stand right behind it.
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

// newContext returns a context with one streamtype, "s", for an address.
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

// newStream makes a stream of the type against the address.
func newStream(t testing.TB, st policy.StreamType, addr netip.AddrPort, tr *trace, o runtime.Options) (*runtime.Context, *runtime.Stream) {
	t.Helper()
	c := newContext(t, st, addr, o)
	s, err := c.NewStream("s", tr.handlers())
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func requestTx(s *runtime.Stream) policy.Result { s.RequestTx(); return policy.OK }
func connect(s *runtime.Stream) policy.Result   { s.Connect(); return policy.OK }
func disconnect(*runtime.Stream) policy.Result  { return policy.DisconnectMe }
func destroy(*runtime.Stream) policy.Result     { return policy.DestroyMe }

// silent reads the request, and says nothing until the channel is closed.
func silent(hold <-chan struct{}) func(net.Conn) {
	return func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		<-hold
	}
}
