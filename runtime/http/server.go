package http

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/httpserver"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Server is an [Option] for policies with servers. An h1 connection is a stream
// whose requests are transactions. Over h2 each request is a stream. A streamtype
// of h2 also accepts HTTP/1.1; one of h1 never negotiates h2. With ws_subprotocol,
// an HTTP/1.1 request may become a WebSocket. The handler of Context.Handle must be
// an [http.Handler]; it receives all requests.
func Server(t *Transport) { t.listen = listen }

// Listen opens the port of a server streamtype. The error wraps ErrUnsupported without
// the Option Server.
func (t *Transport) Listen(s *transport.ServerSetup) (transport.Listener, error) {
	switch {
	case t.version != nil:
		return nil, fmt.Errorf("%w: server over %v", transport.ErrUnsupported, s.Stream.Protocol)
	case t.listen == nil:
		return nil, fmt.Errorf("%w: a server needs New(Server) of package github.com/secure-streams/sspolicy/runtime/http in Options.Transports",
			transport.ErrUnsupported)
	}
	return t.listen(s)
}

func listen(s *transport.ServerSetup) (transport.Listener, error) {
	if s.Stream.HTTP == nil {
		return nil, fmt.Errorf("%w: the compiled policy lacks the settings of the protocol", transport.ErrUnsupported)
	}
	n := &server{setup: s, st: s.Stream}
	for i, m := range n.st.Metadata {
		if m.Header == "" {
			continue
		}
		name := strings.TrimSuffix(m.Header, ":")
		if !policy.IsToken(name) {
			return nil, fmt.Errorf("metadata %q: %q is not the name of a header", m.Name, m.Header)
		}
		n.items = append(n.items, headerItem{http.CanonicalHeaderKey(name), i})
	}
	switch h := s.Handler.(type) {
	case nil:
	case http.Handler:
		n.handler = h
	default:
		return nil, fmt.Errorf("%w: a handler of type %T is not a net/http.Handler", transport.ErrUnsupported, h)
	}
	if n.st.HTTP.WSSubprotocol != "" && n.handler == nil {
		u, ok := s.Transport(policy.ProtocolWS).(httpserver.Upgrader)
		if !ok {
			return nil, fmt.Errorf("%w: ws_subprotocol of a server needs New(Server) of package github.com/secure-streams/sspolicy/runtime/ws in Options.Transports",
				transport.ErrUnsupported)
		}
		var err error
		if n.upgrade, err = u.Upgrader(s); err != nil {
			return nil, err
		}
	}
	return httpserver.Listen(httpserver.Config{Setup: s, H2: n.st.Protocol == policy.ProtocolH2, Handler: n.serve, Accepts: n.accepts})
}

// A server answers the requests of a listener.
type server struct {
	setup   *transport.ServerSetup
	st      *policy.StreamType // of setup
	handler http.Handler       // of the program, or nil
	upgrade httpserver.Handler // nil if WebSockets are not accepted
	items   []headerItem
}

// A headerItem is a metadata item that is mapped to a header.
type headerItem struct {
	name  string // canonical
	index int
}

// accepts reports whether a request to the port of another streamtype is for this
// one.
func (n *server) accepts(r *http.Request) bool {
	return n.handler != nil || n.upgrade != nil || !httpserver.WantsWebSocket(r)
}

// serve answers a request.
func (n *server) serve(c *httpserver.Conn, w http.ResponseWriter, r *http.Request) {
	if n.handler != nil {
		n.serveHandler(w, r)
		return
	}
	if n.upgrade != nil && httpserver.WantsWebSocket(r) {
		n.upgrade(c, w, r)
		return
	}
	defer func() {
		// net/http would hide a panic of the program and leave the stream stuck.
		if p := recover(); p == http.ErrAbortHandler {
			panic(p)
		} else if p != nil {
			text := fmt.Sprintf("%v\n%s", p, debug.Stack())
			go panic(text)
			select {}
		}
	}()
	if limit := n.setup.Limits.BodyBytes; limit > 0 && r.ContentLength > limit {
		http.Error(w, http.StatusText(http.StatusRequestEntityTooLarge), http.StatusRequestEntityTooLarge)
		return
	}
	x := &transaction{n: n, w: w, r: r}
	if r.ProtoMajor >= 2 {
		x.serveStream(c)
		return
	}
	if l := c.Stream; l != nil && c.Of != n.setup { // another streamtype serves now
		c.Stream = nil
		l.End(nil)
	}
	if c.Stream == nil {
		l, err := c.Accept(n.setup, r)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		l.OnEnd(func() { c.Close() })
		c.Stream, c.Of = l, n.setup
	}
	x.l = c.Stream
	if err := x.run(); err != nil {
		c.Fail(err)
		panic(http.ErrAbortHandler)
	}
	x.l.Complete()
}

// serveHandler answers a request with the handler of the program.
func (n *server) serveHandler(w http.ResponseWriter, r *http.Request) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p != http.ErrAbortHandler { // net/http would log it to nowhere
			n.setup.Logger().Error("sspolicy: panic of a handler", "streamtype", n.st.Name, "panic", p, "stack", string(debug.Stack()))
		}
		panic(http.ErrAbortHandler)
	}()
	if r.Body != http.NoBody {
		n.limitBody(w, r)
		r.Body = &timedBody{r.Body, http.NewResponseController(w), n.setup.Limits.IdleTimeout, r.ProtoMajor >= 2}
	}
	limit := n.setup.Limits.IdleTimeout
	if r.ProtoMajor < 2 || limit <= 0 { // over HTTP/1.1 the connection has deadlines
		n.handler.ServeHTTP(w, r)
		return
	}
	timed := &timedWriter{w, http.NewResponseController(w), limit}
	n.handler.ServeHTTP(timed, r)
	timed.begin() // net/http sends the rest
}

// A timedWriter is the ResponseWriter of a handler over HTTP/2. It limits the time
// in which the client must accept each piece.
type timedWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration
}

func (w *timedWriter) begin() { _ = w.rc.SetWriteDeadline(time.Now().Add(w.limit)) }

func (w *timedWriter) end() { _ = w.rc.SetWriteDeadline(time.Time{}) }

func (w *timedWriter) Write(p []byte) (int, error) {
	w.begin()
	defer w.end()
	return w.ResponseWriter.Write(p)
}

func (w *timedWriter) Flush() { _ = w.FlushError() }

func (w *timedWriter) FlushError() error {
	w.begin()
	defer w.end()
	return w.rc.Flush()
}

// Unwrap returns the underlying writer, for http.ResponseController.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (n *server) limitBody(w http.ResponseWriter, r *http.Request) {
	if limit := n.setup.Limits.BodyBytes; limit > 0 && r.Body != http.NoBody {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
	}
}

var _ transport.Server = (*Transport)(nil)
