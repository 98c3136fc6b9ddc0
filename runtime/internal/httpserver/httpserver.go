// Package httpserver runs the server of net/http behind the server streamtypes of h1,
// h2 and ws.
package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Config configures a Server.
type Config struct {
	Setup *transport.ServerSetup

	// H2 enables HTTP/2: by ALPN over TLS, otherwise by prior knowledge.
	H2 bool

	// Handler answers each request. It is not called before Serve.
	Handler Handler

	// Accepts reports whether Handler answers a request. It is used if the
	// streamtype joins the port of another one.
	Accepts func(*http.Request) bool
}

// A Handler answers a request.
type Handler func(*Conn, http.ResponseWriter, *http.Request)

// An Upgrader is a transport that turns requests to an HTTP listener into
// WebSockets.
type Upgrader interface {
	// Upgrader returns the handler of requests for a WebSocket.
	Upgrader(*transport.ServerSetup) (Handler, error)
}

// WantsWebSocket reports whether a request is for a WebSocket.
func WantsWebSocket(r *http.Request) bool {
	if r.ProtoMajor != 1 {
		return false
	}
	for _, v := range r.Header["Upgrade"] {
		for p := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(p), "websocket") {
				return true
			}
		}
	}
	return false
}

// A Server is a transport.Listener.
type Server struct {
	config Config
	http   *http.Server
	ln     net.Listener
	tls    bool

	acceptor transport.Acceptor // set by Serve

	// The host of a server that has joined another one.
	host  *Server
	ready chan struct{} // closed by Serve
	left  chan struct{} // closed when no more requests arrive
	leave func()        // closes left; mu of the host must not be held

	guests  atomic.Pointer[[]*Server] // servers that have joined, the last one first; nil without any
	closeBy atomic.Pointer[time.Time] // the deadline of writes, set by Close; nil before

	mu       sync.Mutex
	none     sync.Cond // signals that upgraded is empty and active is 0
	upgraded map[*Conn]func()
	active   int // requests of a guest
	draining bool
	closed   bool
}

// Listen opens the port.
func Listen(c Config) (*Server, error) {
	if joined := c.Setup.Joined(); joined != nil {
		return join(c, joined)
	}
	alpn := []string{"http/1.1"}
	if c.H2 {
		alpn = []string{"h2", "http/1.1"}
	}
	config, err := c.Setup.ServerTLS(alpn...)
	if err != nil {
		return nil, err
	}
	ln, err := c.Setup.Listen()
	if err != nil {
		return nil, err
	}
	s := newServer(c)
	s.tls = config != nil
	s.ln = &listener{ln, s}
	limits := c.Setup.Limits
	s.http = &http.Server{
		Handler:           s,
		TLSConfig:         config,
		ReadHeaderTimeout: max(limits.HeaderTimeout, 0),
		IdleTimeout:       max(limits.IdleTimeout, 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(c))
		},
		ConnState: connState,
		ErrorLog:  log.New(io.Discard, "", 0), // errors of peers
		Protocols: new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: limits.Streams,
			WriteByteTimeout:     max(limits.IdleTimeout, 0),
		},
	}
	if limits.Streams < 0 {
		s.http.HTTP2.MaxConcurrentStreams = math.MaxInt32
	}
	if n := limits.HeaderBytes; n > 0 {
		s.http.MaxHeaderBytes = n
	} else {
		s.http.MaxHeaderBytes = 1 << 30
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(c.H2 && s.tls)
	s.http.Protocols.SetUnencryptedHTTP2(c.H2 && !s.tls)
	return s, nil
}

func newServer(c Config) *Server {
	s := &Server{config: c, upgraded: make(map[*Conn]func())}
	s.none.L = &s.mu
	return s
}

// join returns a server that answers requests to another one.
func join(c Config, joined transport.Listener) (*Server, error) {
	host, ok := joined.(*Server)
	if !ok {
		return nil, c.Setup.CannotJoin("that server is not one of HTTP")
	}
	if host.host != nil {
		host = host.host
	}
	if c.Setup.Stream.TLS && !host.tls {
		return nil, c.Setup.CannotJoin("that server has no TLS, and this one has")
	}
	s := newServer(c)
	s.host, s.ln, s.tls = host, host.ln, host.tls
	s.ready, s.left = make(chan struct{}), make(chan struct{})
	s.leave = sync.OnceFunc(func() {
		host.change(func(all []*Server) []*Server {
			return slices.DeleteFunc(all, func(g *Server) bool { return g == s })
		})
		close(s.left)
	})
	if !host.change(func(all []*Server) []*Server { return append([]*Server{s}, all...) }) {
		return nil, c.Setup.CannotJoin("that server is closed")
	}
	return s, nil
}

// change replaces the guests. It reports whether the server is open.
func (s *Server) change(f func([]*Server) []*Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := f(slices.Clone(s.joined()))
	s.guests.Store(&all)
	return !s.closed
}

// joined returns the guests.
func (s *Server) joined() []*Server {
	if p := s.guests.Load(); p != nil {
		return *p
	}
	return nil
}

// visit implements Serve for a server that has joined another one.
func (s *Server) visit() error {
	close(s.ready)
	<-s.left
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return net.ErrClosed
}

// dismiss ends Serve of the guests.
func (s *Server) dismiss() {
	for _, g := range s.joined() {
		g.leave()
	}
}

// server returns the server that answers a request.
func (s *Server) server(r *http.Request) *Server {
	for _, g := range s.joined() {
		if g.config.Accepts(r) {
			return g
		}
	}
	return s
}

// enter counts a request of a guest. It returns false if the guest has left.
func (s *Server) enter() bool {
	select {
	case <-s.ready:
	case <-s.left:
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.active++
	return true
}

func (s *Server) exit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.noneLocked()
}

// noneLocked signals none.
func (s *Server) noneLocked() {
	if s.active == 0 && len(s.upgraded) == 0 {
		s.none.Broadcast()
	}
}

// Addr returns the address of the port.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve accepts connections until Close or Shutdown.
func (s *Server) Serve(a transport.Acceptor) error {
	s.acceptor = a
	if s.host != nil {
		return s.visit()
	}
	var err error
	if s.tls {
		err = s.http.ServeTLS(s.ln, "", "")
	} else {
		err = s.http.Serve(s.ln)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "PRI" && r.ProtoMajor == 2 { // net/http passes on the start of HTTP/2
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusHTTPVersionNotSupported)
		return
	}
	c := r.Context().Value(connKey{}).(*Conn)
	if c.idle > 0 && r.ProtoMajor == 1 && r.Body != http.NoBody {
		// net/http reads the rest of the body, and would wait for it forever.
		_ = c.SetReadDeadline(time.Now().Add(c.idle))
	}
	if g := s.server(r); g != s && g.enter() {
		defer g.exit()
		g.config.Handler(c, w, r)
		return
	}
	s.config.Handler(c, w, r)
}

// Shutdown ends connections when their requests have been answered. For upgraded
// ones it calls the end function passed to Upgraded.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed, s.draining = true, true
	var ends []func()
	for _, end := range s.upgraded {
		ends = append(ends, end)
	}
	s.mu.Unlock()
	s.dismiss()
	for _, end := range ends {
		end()
	}
	var err error
	if s.host != nil {
		s.leave()
	} else {
		err = s.http.Shutdown(ctx)
	}
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.none.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for err == nil && len(s.upgraded)+s.active > 0 {
		if err = ctx.Err(); err == nil {
			s.none.Wait()
		}
	}
	return err
}

// Close closes the port and all connections that are not upgraded.
func (s *Server) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	s.dismiss()
	if s.host != nil {
		s.leave()
		return nil
	}
	by := time.Now().Add(closeWait)
	s.closeBy.Store(&by)
	err := s.http.Close()
	if closed {
		return nil
	}
	return errors.Join(err, ignoreClosed(s.ln.Close())) // which net/http has not seen before Serve
}

// closeWait is how long Close waits, in total, for clients to read the close_notify of
// TLS. net/http closes one connection after the other, and crypto/tls waits 5 s for each.
const closeWait = time.Second

// limit returns the write deadline t, or an earlier one if Close is closing c.
func (c *Conn) limit(t time.Time) time.Time {
	if by := c.server.closeBy.Load(); by != nil && !c.upgraded.Load() && (t.IsZero() || by.Before(t)) {
		return *by
	}
	return t
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// A Conn is a network connection.
type Conn struct {
	net.Conn
	server *Server
	idle   time.Duration
	by     atomic.Int64 // the latest write deadline, in Unix nanoseconds

	upgraded atomic.Bool

	// Stream is the stream of the connection, or nil. Only the handler over HTTP/1,
	// which never runs concurrently, uses it. Its End is called when the connection
	// ends, unless it was hijacked. Of is its streamtype.
	Stream transport.AcceptedLink
	Of     *transport.ServerSetup

	failed   atomic.Pointer[error]
	verified atomic.Pointer[error] // result of verifyClient; nil before the first call
}

// Accept makes a stream of the connection, or of a request on it, for a streamtype.
func (c *Conn) Accept(of *transport.ServerSetup, r *http.Request) (transport.AcceptedLink, error) {
	s := c.serverOf(of)
	if s == nil {
		return nil, transport.ErrClosed
	}
	return s.acceptor.Accept(transport.Peer{
		Local: c.LocalAddr(), Remote: c.RemoteAddr(), TLS: r.TLS, VerifyError: c.verifyClient(r.TLS),
	})
}

// serverOf returns the server of a streamtype: that of the port, or a guest. It
// returns nil if the guest has left.
func (c *Conn) serverOf(of *transport.ServerSetup) *Server {
	if c.server.config.Setup == of {
		return c.server
	}
	for _, g := range c.server.joined() {
		if g.config.Setup == of {
			return g
		}
	}
	return nil
}

// verifyClient calls ServerSetup.VerifyClient once per connection.
func (c *Conn) verifyClient(state *tls.ConnectionState) error {
	if state == nil {
		return nil
	}
	p := c.verified.Load()
	if p == nil {
		err := c.server.config.Setup.VerifyClient(state)
		p = &err
		c.verified.Store(p)
	}
	return *p
}

// Request returns the head of a request for a stream.
func Request(r *http.Request) transport.Request {
	var query url.Values
	if r.URL.RawQuery != "" {
		query = r.URL.Query()
	}
	return transport.Request{
		Method: r.Method, Path: r.URL.Path, Query: query, Auth: r.Header.Get("Authorization"),
		Header: func(name string) string {
			if v := r.Header.Get(name); v != "" || http.CanonicalHeaderKey(name) != "Host" {
				return v
			}
			return r.Host
		},
	}
}

// Upgraded reports that the connection was hijacked. end is called when the server
// of the streamtype drains, possibly at once, and must begin to close the
// connection. The caller must call ended when the connection has ended.
func (c *Conn) Upgraded(of *transport.ServerSetup, end func()) (ended func()) {
	c.upgraded.Store(true)
	s := c.serverOf(of)
	if s == nil { // it has left, and its streams end
		return func() {}
	}
	s.mu.Lock()
	s.upgraded[c] = end
	draining := s.draining
	s.mu.Unlock()
	if draining {
		end()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.upgraded, c)
		s.noneLocked()
	}
}

// Fail sets the reason for the end of the connection's stream.
func (c *Conn) Fail(err error) { c.failed.CompareAndSwap(nil, &err) }

// Write writes, and ends the connection if the peer does not read.
func (c *Conn) Write(p []byte) (int, error) {
	if c.idle > 0 {
		// Setting a deadline takes time, so a write may have slightly less than
		// idle.
		if now := time.Now(); c.by.Load() < now.Add(c.idle-c.idle/8).UnixNano() {
			by := c.limit(now.Add(c.idle))
			c.by.Store(by.UnixNano())
			if err := c.Conn.SetWriteDeadline(by); err != nil {
				return 0, err
			}
		}
	}
	return c.Conn.Write(p)
}

// SetWriteDeadline sets the deadline of writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.Conn.SetWriteDeadline(c.limit(t))
}

// CloseWrite closes the sending direction, if the connection supports that.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

type connKey struct{}

// A listener makes a Conn of each connection.
type listener struct {
	net.Listener
	s *Server
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.s.config.Setup.AcceptConn(l.Listener)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: conn, server: l.s, idle: l.s.config.Setup.Limits.IdleTimeout}, nil
}

// connOf returns the Conn of a connection of net/http.
func connOf(c net.Conn) *Conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*Conn)
}

// connState ends the stream of a connection that has ended.
func connState(nc net.Conn, state http.ConnState) {
	if state != http.StateClosed {
		return
	}
	c := connOf(nc)
	if l := c.Stream; l != nil {
		c.Stream = nil
		var err error
		if p := c.failed.Load(); p != nil {
			err = *p
		}
		l.End(err)
	}
}
