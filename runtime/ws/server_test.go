package ws_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	stdhttp "net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// A server is a listener, with the traces of its clients.
type server struct {
	c       *runtime.Context
	s       *runtime.Stream
	clients chan *trace
}

// newServer creates a listener of st. Its clients echo each message, and handle events with
// on.
func newServer(t testing.TB, st policy.StreamType, o []ws.Option, on teststream.Actions, options ...runtime.StreamOption) server {
	t.Helper()
	st.Name, st.Server, st.Endpoint = "s", true, "127.0.0.1"
	if st.HTTP == nil {
		st.HTTP = new(policy.HTTP)
	}
	n := server{clients: make(chan *trace, 100)}
	n.c = teststream.NewContext(t, runtime.Options{
		Transports: []transport.Transport{ws.New(append(o, ws.Server)...), http.New(http.Server)},
		Logger:     slog.New(slog.DiscardHandler),
	}, &st)
	var err error
	n.s, err = n.c.NewStream("s", runtime.Handlers{}, append(options, runtime.WithClients(func(*runtime.Stream) runtime.Handlers {
		tr := newTrace(on)
		n.clients <- tr
		return echoing(tr)
	}))...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// echoing returns the handlers of tr that echo each message.
func echoing(tr *trace) runtime.Handlers {
	h := tr.handlers()
	var message []byte
	note := h.Rx
	h.Rx = func(s *runtime.Stream, buf []byte, flags policy.Flags) policy.Result {
		message = append(message, buf...)
		if flags&policy.FlagEOM != 0 {
			s.RequestTx()
		}
		return note(s, buf, flags)
	}
	h.Tx = func(_ *runtime.Stream, _ uint32, buf []byte) (int, policy.Flags, policy.Result) {
		n := copy(buf, message)
		message = nil
		return n, policy.FlagSOM | policy.FlagEOM, policy.OK
	}
	return h
}

// dial opens a WebSocket to the server.
func (n server) dial(t testing.TB, o *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), "ws://"+n.s.Addr().String()+"/path?q=1", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// exchange sends a message and returns the next one.
func exchange(t testing.TB, c *websocket.Conn, message string) string {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	_, got, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestServer checks the states of a client, and its metadata.
func TestServer(t *testing.T) {
	var seen []string
	n := newServer(t, policy.StreamType{Protocol: policy.ProtocolWS, Metadata: []policy.Metadata{{Name: "path"}, {Name: "q"}}}, nil, teststream.Actions{
		"UPG": func(s *runtime.Stream) runtime.Result {
			for _, name := range []string{"path", "q"} {
				seen = append(seen, teststream.Must(s.Metadata(name)))
			}
			return runtime.OK
		},
	})
	c := n.dial(t, nil)
	if got := exchange(t, c, "hello"); got != "hello" {
		t.Errorf("echo: %q", got)
	}
	if got := strings.Join(seen, " "); got != "/path 1" {
		t.Errorf("metadata: %s", got)
	}
	if err := c.Close(4001, "bye"); err != nil {
		t.Error(err)
	}
	tr := <-n.clients
	tr.AwaitEnd(t, "DES")
	tr.Want(t, "CRE CNG UPG CON <hello> DIS DES")
}

// TestServerUpgrade has one streamtype serve pages and WebSockets.
func TestServerUpgrade(t *testing.T) {
	for _, protocol := range []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2} {
		t.Run(protocol.String(), func(t *testing.T) {
			n := newServer(t, policy.StreamType{Protocol: protocol, HTTP: &policy.HTTP{WSSubprotocol: "chat"}}, nil, teststream.Actions{
				"TXN": func(s *runtime.Stream) runtime.Result {
					s.Respond("page.html", time.Time{}, strings.NewReader("page"))
					return runtime.OK
				},
			})
			conn, err := net.Dial("tcp", n.s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := stdhttp.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, _ := io.ReadAll(resp.Body); string(body) != "page" {
				t.Errorf("%q", body)
			}
			client := &stdhttp.Client{Transport: &stdhttp.Transport{
				DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			}}
			page := <-n.clients
			page.Want(t, "CRE CNG CON TXN")
			// The connection of the page becomes the WebSocket, in a stream of its own.
			c := n.dial(t, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"other", "chat"}})
			if got := c.Subprotocol(); got != "chat" {
				t.Errorf("subprotocol %q", got)
			}
			exchange(t, c, "hello")
			page.Want(t, "CRE CNG CON TXN DIS DES")
			tr := <-n.clients
			tr.Want(t, "CRE CNG UPG CON <hello>")
			c.CloseNow()
			tr.AwaitEnd(t, "DIS DES")
		})
	}
}

// TestServerRefusals checks requests that do not become a WebSocket.
func TestServerRefusals(t *testing.T) {
	origin := func(v string) func(stdhttp.Header) {
		return func(h stdhttp.Header) { h.Set("Origin", v) }
	}
	for _, tt := range []struct {
		name   string
		option ws.Option
		on     teststream.Actions
		change func(stdhttp.Header)
		want   int
		trace  string // of the client, if a stream was created
	}{
		{"good", nil, nil, nil, 101, ""},
		{"no upgrade", nil, nil, func(h stdhttp.Header) { h.Del("Upgrade") }, 426, ""},
		{"old version", nil, nil, func(h stdhttp.Header) { h.Set("Sec-WebSocket-Version", "8") }, 400, ""},
		{"bad key", nil, nil, func(h stdhttp.Header) { h.Set("Sec-WebSocket-Key", "x") }, 400, ""},
		{"no subprotocol", nil, nil, func(h stdhttp.Header) { h.Del("Sec-WebSocket-Protocol") }, 400, ""},
		{"another subprotocol", nil, nil, func(h stdhttp.Header) { h.Set("Sec-WebSocket-Protocol", "x") }, 400, ""},
		{"another origin", nil, nil, origin("https://evil.example"), 403, ""},
		{"own origin", nil, nil, origin("HOST"), 101, ""},
		{"null origin", nil, nil, origin("null"), 403, ""},
		{"origin by option", ws.WithOrigins("*.example"), nil, origin("https://a.example"), 101, ""},
		{"origin not by option", ws.WithOrigins("*.example"), nil, origin("https://example.org"), 403, ""},
		{"any origin", ws.WithOrigins("*"), nil, origin("https://a.example"), 101, ""},
		{"refused in CREATING", nil, teststream.Actions{"CRE": teststream.Destroy}, nil, 503, "CRE DES"},
		{"refused in SERVER_UPGRADE", nil, teststream.Actions{"UPG": teststream.Disconnect}, nil, 403, "CRE CNG UPG DES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var options []ws.Option
			if tt.option != nil {
				options = append(options, tt.option)
			}
			n := newServer(t, policy.StreamType{Protocol: policy.ProtocolWS, HTTP: &policy.HTTP{WSSubprotocol: "chat"}}, options, tt.on)
			req, _ := stdhttp.NewRequest("GET", "http://"+n.s.Addr().String(), nil)
			for name, v := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
				"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "chat",
			} {
				req.Header.Set(name, v)
			}
			if tt.change != nil {
				tt.change(req.Header)
			}
			if req.Header.Get("Origin") == "HOST" {
				req.Header.Set("Origin", (&url.URL{Scheme: "http", Host: req.URL.Host}).String())
			}
			client := &stdhttp.Client{Transport: &stdhttp.Transport{DisableKeepAlives: true}}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.want)
			}
			if accept := resp.Header.Get("Sec-WebSocket-Accept"); (accept != "") != (tt.want == 101) {
				t.Errorf("Sec-WebSocket-Accept %q", accept)
			}
			if tt.trace != "" {
				tr := <-n.clients
				tr.AwaitEnd(t, "DES")
				tr.Want(t, tt.trace)
			} else if tt.want != 101 && len(n.clients) > 0 {
				t.Error("there is a stream")
			}
		})
	}
}

// TestServerCloses checks the close codes that clients receive.
func TestServerCloses(t *testing.T) {
	for _, tt := range []struct {
		name string
		on   teststream.Actions
		act  func(server)
		send string // raw frames of the client
		want websocket.StatusCode
	}{
		{name: "shutdown", act: func(n server) { go n.s.Shutdown(context.Background()) }, want: websocket.StatusGoingAway},
		{name: "destroyed", act: func(n server) { n.s.Destroy() }, want: websocket.StatusNormalClosure},
		{name: "the context ends", act: func(n server) { n.c.Close() }, want: websocket.StatusGoingAway},
		{name: "DisconnectMe", on: teststream.Actions{"CON": teststream.Disconnect}, want: websocket.StatusNormalClosure},
		{name: "a frame without mask", send: "\x81\x01x", want: websocket.StatusProtocolError},
		{name: "text that is not UTF-8", send: "\x81\x81\x00\x00\x00\x00\xff", want: websocket.StatusInvalidFramePayloadData},
		{name: "a long message", send: "\x82\xfe\x01\x01\x00\x00\x00\x00" + strings.Repeat("x", 257), want: websocket.StatusMessageTooBig},
		{name: "fragments without end", send: "\x02\x80\x00\x00\x00\x00" + strings.Repeat("\x00\x81\x00\x00\x00\x00x", 300), want: websocket.StatusMessageTooBig},
		{name: "pings without end", send: strings.Repeat("\x89\x80\x00\x00\x00\x00", 100_000), want: websocket.StatusPolicyViolation},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newServer(t, policy.StreamType{Protocol: policy.ProtocolWS}, nil, tt.on, runtime.WithLimits(runtime.Limits{MessageBytes: 256}))
			var raw net.Conn
			client := &stdhttp.Client{Transport: &stdhttp.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
				raw, err = new(net.Dialer).DialContext(ctx, network, addr)
				return raw, err
			}}}
			c := n.dial(t, &websocket.DialOptions{HTTPClient: client})
			tr := <-n.clients
			tr.AwaitCount(t, 1, "CON")
			if tt.act != nil {
				tt.act(n)
			}
			if tt.send != "" {
				go io.WriteString(raw, tt.send)
			}
			for {
				if _, _, err := c.Read(t.Context()); err != nil {
					if got := websocket.CloseStatus(err); got != tt.want {
						t.Errorf("%v, want %v", err, tt.want)
					}
					break
				}
			}
			tr.AwaitEnd(t, "DIS DES")
		})
	}
}

// handshake is a request for a WebSocket.
const handshake = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// TestServerClosesAtOnce checks that a client that has violated the protocol sees the end
// of the connection immediately after the close frame.
func TestServerClosesAtOnce(t *testing.T) {
	var least time.Duration
	for try := 0; try == 0 || least > drainWait/2 && try < 5; try++ {
		n := newServer(t, policy.StreamType{Protocol: policy.ProtocolWS}, nil, nil)
		c, err := net.Dial("tcp", n.s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, handshake+"\x81\x81\x00\x00\x00\x00\xff")
		r := bufio.NewReader(c)
		if resp, err := stdhttp.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
			t.Fatal(resp, err)
		}
		var frame [4]byte
		if _, err := io.ReadFull(r, frame[:]); err != nil || frame != [4]byte{0x88, 2, 1007 >> 8, 1007 & 0xff} {
			t.Fatalf("% x %v", frame, err)
		}
		closed := time.Now()
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("after the close frame: %v", err)
		}
		if d := time.Since(closed); try == 0 || d < least {
			least = d
		}
	}
	if least > drainWait/2 {
		t.Errorf("the connection ended %v after the close frame", least)
	}
}

// drainWait is that of the package.
const drainWait = 500 * time.Millisecond

// TestServerSharesTransport has streams of one context at both ends.
func TestServerSharesTransport(t *testing.T) {
	n := newServer(t, policy.StreamType{Protocol: policy.ProtocolWS}, []ws.Option{ws.WithDeflate()}, nil)
	addr := n.s.Addr().(*net.TCPAddr).AddrPort()
	tr := newTrace(teststream.Actions{"CRE": teststream.RequestTx})
	tr.tx = send(strings.Repeat("a long message ", 1000) + "|and the rest")
	_, s := newStream(t, policy.StreamType{}, addr, tr, runtime.Options{Transports: []transport.Transport{ws.New(ws.WithDeflate())}})
	tr.AwaitEnd(t, ">")
	s.Destroy()
	tr.AwaitEnd(t, "DES")
	client := <-n.clients
	client.AwaitEnd(t, "DIS DES")
}

// TestServerIdle checks that a connection releases the memory of net/http's handshake,
// which is more than 10 KB.
func TestServerIdle(t *testing.T) {
	const n, most = 200, 22 << 10
	s := newServer(t, policy.StreamType{Protocol: policy.ProtocolWS}, nil, nil)
	exchange(t, s.dial(t, nil), "hello") // memory of the first connection only
	before := heap()
	for range n {
		c, err := net.Dial("tcp", s.s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, handshake)
		if resp, err := stdhttp.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 101 {
			t.Fatal(resp, err)
		}
		<-s.clients
	}
	each := (heap() - before) / n
	t.Logf("%d bytes per idle connection", each)
	if each > most {
		t.Errorf("an idle connection holds %d bytes, more than %d", each, most)
	}
}
