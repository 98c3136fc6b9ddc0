package ws

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime/internal/httpserver"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Server is an [Option] for policies with servers. Each connection is a stream. A
// server streamtype of ws answers a request that is not for a WebSocket with 426.
func Server(t *Transport) { t.listen, t.upgrader = listen, upgrader }

var errNoServer = fmt.Errorf("%w: a server needs New(Server) of package github.com/secure-streams/sspolicy/runtime/ws in Options.Transports", transport.ErrUnsupported)

// Listen opens the port of a server streamtype. The error wraps ErrUnsupported
// without the option Server.
func (t *Transport) Listen(s *transport.ServerSetup) (transport.Listener, error) {
	if t.listen == nil {
		return nil, errNoServer
	}
	return t.listen(t, s)
}

// Upgrader returns the handler of requests for a WebSocket, for the transports that
// serve HTTP. The error wraps ErrUnsupported without the option Server.
func (t *Transport) Upgrader(s *transport.ServerSetup) (httpserver.Handler, error) {
	if t.upgrader == nil {
		return nil, errNoServer
	}
	return t.upgrader(t, s)
}

func listen(t *Transport, s *transport.ServerSetup) (transport.Listener, error) {
	if s.Handler != nil {
		return nil, fmt.Errorf("%w: a handler of type %T over ws", transport.ErrUnsupported, s.Handler)
	}
	serve, err := upgrader(t, s)
	if err != nil {
		return nil, err
	}
	return httpserver.Listen(httpserver.Config{Setup: s, Handler: serve, Accepts: httpserver.WantsWebSocket})
}

func upgrader(t *Transport, s *transport.ServerSetup) (httpserver.Handler, error) {
	if s.Stream.HTTP == nil {
		return nil, fmt.Errorf("%w: the compiled policy lacks the settings of the protocol", transport.ErrUnsupported)
	}
	n, err := t.newConnector(s.Setup)
	if err != nil {
		return nil, err
	}
	n.server = s
	return func(c *httpserver.Conn, w http.ResponseWriter, r *http.Request) {
		if u, ws := n.accept(c, w, r, s.Limits.MessageBytes); ws != nil {
			// A goroutine of its own, without u, so that net/http frees its stack and buffers.
			go n.serve(c, u.l, ws, u.wire)
		}
	}, nil
}

// accept turns a request into a WebSocket, or answers it with an error.
func (n *connector) accept(c *httpserver.Conn, w http.ResponseWriter, r *http.Request, limit int64) (*upgrade, *websocket.Conn) {
	u := &upgrade{ResponseWriter: w, n: n, c: c, r: r, wire: new(wire)}
	ws, err := websocket.Accept(u, r, &websocket.AcceptOptions{
		Subprotocols:       n.subprotocols,
		OriginPatterns:     n.t.origins,
		InsecureSkipVerify: n.t.anyOrigin,
		CompressionMode:    n.t.deflate,
		OnPingReceived:     pongs(u.wire),
	})
	if err != nil {
		return nil, nil
	}
	if limit <= 0 {
		limit = -1
	}
	ws.SetReadLimit(limit)
	return u, ws
}

// serve serves an accepted connection until its end.
func (n *connector) serve(hc *httpserver.Conn, l transport.AcceptedLink, ws *websocket.Conn, w *wire) {
	c := n.newConn(l, ws, w)
	ended := hc.Upgraded(n.server, func() { go c.closeWith(websocket.StatusGoingAway) })
	defer ended()
	err := l.Connected()
	if err != nil {
		c.close()
	} else {
		err = c.run(l.Context())
	}
	l.End(err)
}

// An upgrade is the http.ResponseWriter of the library's handshake. It delays the
// response until the library has accepted the request, and the program the stream.
type upgrade struct {
	http.ResponseWriter
	n    *connector
	c    *httpserver.Conn
	r    *http.Request
	wire *wire
	l    transport.AcceptedLink

	refused bool // the response has been written
}

var errRefused = errors.New("sspolicy: ws: the upgrade is refused")

// WriteHeader delays the head of a response that accepts the upgrade.
func (u *upgrade) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols && !u.refused {
		u.ResponseWriter.WriteHeader(status)
	}
}

// Write writes an error of the library.
func (u *upgrade) Write(p []byte) (int, error) {
	if u.refused {
		return len(p), nil
	}
	return u.ResponseWriter.Write(p)
}

// refuse answers the request with an error.
func (u *upgrade) refuse(status int, text string) error {
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions"} {
		u.Header().Del(name)
	}
	http.Error(u.ResponseWriter, text, status)
	u.refused = true
	return errRefused
}

// Hijack makes the stream, sends the response and takes over the connection. The
// library calls it when it has checked the request.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if len(u.n.subprotocols) > 0 && u.Header().Get("Sec-Websocket-Protocol") == "" {
		return nil, nil, u.refuse(http.StatusBadRequest, "none of the subprotocols is supported")
	}
	if err := u.begin(); err != nil {
		return nil, nil, err
	}
	u.ResponseWriter.WriteHeader(http.StatusSwitchingProtocols)
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		u.l.End(err)
		u.refused = true
		return nil, nil, err
	}
	// Until run, the library does not read.
	w := u.wire
	w.Conn = conn
	if first, _ := rw.Reader.Peek(rw.Reader.Buffered()); len(first) > 0 {
		w.first = bytes.Clone(first) // without the buffer of net/http
	}
	w.check.masked = true
	w.check.deflate = u.Header().Get("Sec-Websocket-Extensions") != ""
	return w, bufio.NewReadWriter(bufio.NewReader(w), bufio.NewWriterSize(w, serverBuffer)), nil
}

// begin makes the stream. A stream of earlier requests on the connection ends.
func (u *upgrade) begin() error {
	defer func() {
		// net/http would hide a panic of the program and leave the stream stuck.
		if p := recover(); p != nil {
			text := fmt.Sprintf("%v\n%s", p, debug.Stack())
			go panic(text)
			select {}
		}
	}()
	if l := u.c.Stream; l != nil {
		u.c.Stream = nil
		l.End(nil)
	}
	l, err := u.c.Accept(u.n.server, u.r)
	if err != nil {
		return u.refuse(http.StatusServiceUnavailable, "the server accepts no stream")
	}
	if err := l.Upgrade(httpserver.Request(u.r)); err != nil {
		l.End(err)
		return u.refuse(http.StatusForbidden, "the upgrade is refused")
	}
	u.l = l
	return nil
}

var (
	_ transport.Server    = (*Transport)(nil)
	_ httpserver.Upgrader = (*Transport)(nil)
)
