package faulttest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/faulttest/link"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A behavior describes how a peer differs from a healthy one. The zero value is
// healthy.
type behavior struct {
	address string                              // the stream dials this address, where no process listens
	gone    bool                                // no process listens on the address of the peer
	full    bool                                // connections are not accepted
	link    func() link.Fault                   // of each connection
	wire    func(net.Conn)                      // serves a connection, before TLS
	tls     func(*tls.Config)                   // changes the TLS of the server
	plain   bool                                // the server has no TLS
	conn    func(net.Conn)                      // serves a connection, after TLS
	http    func(http.Handler) http.HandlerFunc // serves requests; the argument is the healthy handler
	mqtt    *brokerFaults
	resolve *int           // response code of a name server; -1 means no response
	socks   func(net.Conn) // serves the connections to a SOCKS5 proxy
}

// authorityName is the subject of the temporary authority.
const authorityName = "sspolicy faults"

// A peer is the peer that the stream is redirected to.
type peer struct {
	*subject
	options *Options
	ca      *testcert.Authority
	name    string // host name of the policy, or "" if it is not constant
	port    uint16 // port of the policy, or a common one

	ctx     context.Context // done when the peer is closed
	cancel  context.CancelFunc
	strikes atomic.Int32
	wg      sync.WaitGroup

	mu      sync.Mutex
	closers []func()
	conns   map[net.Conn]bool
}

func newPeer(s *subject, o *Options) *peer {
	if o.Authority == nil {
		o.Authority = NewAuthority()
	}
	p := &peer{subject: s, options: o, ca: o.Authority.authority, conns: map[net.Conn]bool{}}
	if t, err := policy.ParseTarget(s.Endpoint, s.StreamType); err == nil && policy.IsHostName(t.Host) {
		p.name, p.port = t.Host, t.Port
	} else if ip, err := netip.ParseAddr(s.Endpoint); err == nil {
		p.name, p.port = ip.String(), s.Port
	}
	p.port = cmp.Or(p.port, s.Port, 80)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// strike reports that the fault acts.
func (p *peer) strike(format string, args ...any) {
	p.strikes.Add(1)
	p.logf(format, args...)
}

func (p *peer) logf(format string, args ...any) {
	if p.options.Log != nil {
		p.options.Log(fmt.Sprintf(format, args...))
	}
}

// onClose registers f to be called by close.
func (p *peer) onClose(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closers = append(p.closers, f)
}

// close ends the peer and waits for its goroutines.
func (p *peer) close() {
	p.cancel()
	p.mu.Lock()
	closers := p.closers
	p.closers = nil
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	for _, f := range closers {
		f()
	}
	p.wg.Wait()
}

// track makes close close a connection. The caller must call untrack, which also
// closes it.
func (p *peer) track(c net.Conn) (untrack func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	if p.ctx.Err() != nil {
		c.Close()
	}
	return func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		c.Close()
	}
}

// sleep waits for d, and reports whether the peer is still open.
func (p *peer) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// hold reads from a connection without answering, until the connection or the peer
// ends.
func (p *peer) hold(c net.Conn) { io.Copy(io.Discard, c) }

// reserve returns an address on which no process listens, and none can until the peer is
// closed: the client address of a connection.
func (p *peer) reserve() (net.Addr, error) {
	local, err := net.ResolveTCPAddr("tcp", p.options.listen())
	if err != nil {
		return nil, err
	}
	ln, err := p.listen(net.JoinHostPort(local.IP.String(), "0"))
	if err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{LocalAddr: local}).DialContext(p.ctx, "tcp", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	p.onClose(func() {
		c.(*net.TCPConn).SetLinger(0) // makes the port reusable immediately
		c.Close()
	})
	return c.LocalAddr(), nil
}

// listen listens on an address until the peer is closed.
func (p *peer) listen(address string) (*net.TCPListener, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p.onClose(func() { ln.Close() })
	return ln.(*net.TCPListener), nil
}

// start starts a peer with the given behavior and returns the target for the
// stream.
func (p *peer) start(b *behavior) (*Target, error) {
	t := &Target{stream: p.Name, roots: p.ca}
	if b.resolve != nil {
		return t, p.startResolver(t, *b.resolve)
	}
	if b.address != "" {
		addr, err := netip.ParseAddrPort(b.address)
		if err == nil {
			t.host, t.port = addr.Addr().String(), addr.Port()
			p.strike("the stream goes to %v", addr)
		}
		return t, err
	}
	if p.Protocol == policy.ProtocolH3 {
		return t, p.startH3(t, b)
	}
	var ln *net.TCPListener
	var err error
	if b.full {
		ln, err = fullListener(p.options.listen(), p.onClose)
		if err != nil {
			return nil, err
		}
		t.at(ln.Addr())
		p.strike("the queue of %v is full", ln.Addr())
		return t, nil
	}
	if b.gone {
		addr, err := p.reserve()
		if err != nil {
			return nil, err
		}
		t.at(addr)
		p.strike("no server listens on %v", addr)
		return t, nil
	}
	if b.link != nil {
		ln, err = p.listen("127.0.0.1:0")
	} else {
		ln, err = p.listen(p.options.listen())
	}
	if err != nil {
		return nil, err
	}
	switch {
	case b.socks != nil:
		t.at(ln.Addr())
		t.proxy, t.host, t.port = ln.Addr().String(), cmp.Or(p.name, unknownHost), p.port
		p.accept(ln, b.socks)
		return t, nil
	case b.link != nil:
		proxy, err := link.Listen(p.options.listen(), ln.Addr().String(), func() link.Fault {
			f := b.link()
			f.Strike = func(what string) { p.strike("%s", what) }
			return f
		})
		if err != nil {
			return nil, err
		}
		p.onClose(proxy.Close)
		t.host, t.port = proxy.Addr().Addr().String(), proxy.Addr().Port()
	default:
		t.at(ln.Addr())
	}
	if b.wire != nil {
		p.accept(ln, b.wire)
		return t, nil
	}
	p.serve(ln, b)
	return t, nil
}

// accept serves connections, and closes each when serve returns.
func (p *peer) accept(ln net.Listener, serve func(net.Conn)) {
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.logf("connection from %v", c.RemoteAddr())
			p.wg.Go(func() {
				defer p.track(c)()
				serve(c)
			})
		}
	})
}

// config returns the TLS configuration of a healthy server.
func (p *peer) config() *tls.Config {
	var protos []string
	switch p.Protocol {
	case policy.ProtocolH1, policy.ProtocolWS:
		protos = []string{"http/1.1"}
	case policy.ProtocolH2:
		protos = []string{"h2", "http/1.1"}
	}
	c := p.ca.Server(protos, p.names()...)
	if p.Protocol == policy.ProtocolMQTT || p.Protocol == policy.ProtocolRaw {
		// Clients may offer any protocol: choose the first.
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if len(hello.SupportedProtos) == 0 {
				return nil, nil
			}
			own := c.Clone()
			own.GetConfigForClient, own.NextProtos = nil, hello.SupportedProtos[:1]
			return own, nil
		}
	}
	return c
}

// names returns the names for which the peer's certificate is valid.
func (p *peer) names() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(p.options.listen()); err == nil && host != "" {
		names = append(names, host)
	}
	if p.name != "" {
		names = append(names, p.name)
	}
	return names
}

// serve serves connections in the protocol of the stream.
func (p *peer) serve(ln net.Listener, b *behavior) {
	var config *tls.Config
	if p.tls && !b.plain {
		config = p.config()
		if b.tls != nil {
			b.tls(config)
		}
	}
	conn := b.conn
	if conn == nil {
		switch p.Protocol {
		case policy.ProtocolMQTT:
			conn = p.broker(b.mqtt)
		case policy.ProtocolRaw:
			conn = p.echo
		default:
			p.serveHTTP(ln, config, b)
			return
		}
	}
	p.accept(ln, func(c net.Conn) {
		if config != nil {
			secure := tls.Server(c, config)
			if err := secure.HandshakeContext(p.ctx); err != nil {
				p.logf("handshake: %v", err)
				p.hold(c) // let the client read the alert
				return
			}
			c = secure
		}
		conn(c)
	})
}

// echo is the healthy server of raw streams.
func (p *peer) echo(c net.Conn) {
	if p.options.Upstream != "" {
		p.forward(c)
		return
	}
	io.WriteString(c, "hello")
	io.Copy(c, c)
}

// forward forwards a connection to the upstream server.
func (p *peer) forward(c net.Conn) {
	up, err := p.dialUpstream(p.ctx, "tcp", p.options.Upstream)
	if err != nil {
		p.logf("upstream: %v", err)
		return
	}
	defer p.track(up)()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(up, c)
		closeWrite(up)
	}()
	io.Copy(c, up)
	closeWrite(c)
	<-done
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}

// dialUpstream connects to the upstream server, with the TLS of the policy.
func (p *peer) dialUpstream(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if !p.tls {
		return d.DialContext(ctx, network, address)
	}
	config := &tls.Config{ServerName: p.name}
	if p.TrustStore != nil {
		pool, err := rootsOf(p.TrustStore)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if p.Protocol == policy.ProtocolH2 {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	return (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, network, address)
}

// quiet is a logger that discards everything.
var quiet = log.New(io.Discard, "", 0)

// handler returns the handler of an HTTP server.
func (p *peer) handler(b *behavior) http.Handler {
	handler := p.healthyHandler()
	if b.http != nil {
		handler = b.http(handler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.logf("%s %s from %s", r.Method, r.URL, r.RemoteAddr)
		handler.ServeHTTP(w, r)
	})
}

// serveHTTP runs an HTTP server.
func (p *peer) serveHTTP(ln net.Listener, config *tls.Config, b *behavior) {
	server := &http.Server{TLSConfig: config, ErrorLog: quiet, Handler: p.handler(b)}
	if config == nil {
		server.Protocols = new(http.Protocols)
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetUnencryptedHTTP2(true)
	} else {
		ln = tls.NewListener(ln, config)
	}
	p.onClose(func() { server.Close() })
	p.wg.Go(func() {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			p.logf("server: %v", err)
		}
	})
}
