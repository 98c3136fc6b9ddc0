package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Dialer makes network connections as the policy wants them for a streamtype:
// through its proxy, with its priority and type of service. Equal Dialers make
// the same connections, so a Dialer can be part of the key of a connection pool.
type Dialer struct {
	env        *Env
	proxy      *Proxy // nil means none
	attributes attributes
}

// Dialer returns the dialer of a streamtype. An error wraps ErrEndpoint.
func (e *Env) Dialer(st *policy.StreamType) (Dialer, error) {
	proxy, err := e.proxy(st.SOCKS5Proxy)
	return Dialer{e, proxy, attributesOf(st)}, err
}

// Proxy returns the proxy that the connections go through, or nil.
func (d Dialer) Proxy() *Proxy { return d.proxy }

// Dial makes a connection; network is "tcp" or "unix". It takes DialTimeout at
// most, and the connection does not outlive the context. If there is a proxy,
// "tcp" goes through it, and it resolves the name in address.
func (d Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	p := d.proxy
	if p == nil || network != "tcp" {
		return d.dial(ctx, network, address, nil)
	}
	conn, err := d.dial(ctx, network, p.address, func(ctx context.Context, conn net.Conn) error {
		return p.connect(ctx, conn, address)
	})
	if err != nil {
		return nil, &ProxyError{p.address, err}
	}
	return conn, nil
}

// Dial makes the network connection of an attempt, with TLS if t wants it: to the
// Link's Target, or where the peer redirects. The handshake offers the protocols
// of alpn (RFC 7301), and fails if the server agrees on another one. ctx is the
// context of Run.
func (s *Setup) Dial(ctx context.Context, t *policy.Target, alpn ...string) (net.Conn, error) {
	var config *tls.Config
	if t.TLS {
		shared, err := s.TLS(ctx)
		if err != nil {
			return nil, err // before anything is sent
		}
		config = shared.Clone()
		config.ServerName, config.NextProtos = ServerName(t), alpn
	}
	conn, err := s.Dialer.Dial(ctx, t.Network, t.Address())
	if err != nil || config == nil {
		return conn, err
	}
	secure := tls.Client(conn, config)
	trace := Trace(ctx)
	trace.TLSHandshakeStart()
	err = secure.HandshakeContext(ctx)
	trace.TLSHandshakeDone(secure.ConnectionState(), err)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// ServerName returns the name that the certificate of a target has to be for.
func ServerName(t *policy.Target) string {
	if t.Network == "unix" {
		return "localhost"
	}
	return t.Host
}

// dial makes a connection, and prepares it for use; both within the limit.
func (d Dialer) dial(ctx context.Context, network, address string, prepare func(context.Context, net.Conn) error) (net.Conn, error) {
	// Transports may let a dial continue when its attempt has ended.
	var cancel context.CancelFunc
	if limit := d.env.DialTimeout(); limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	defer context.AfterFunc(d.env.life, cancel)()
	conn, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if prepare != nil {
		if err := prepare(ctx, conn); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return d.env.dialed.add(conn)
}

// connect makes a connection with the attributes of the streamtype.
func (d Dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if f := d.env.config.DialContext; f != nil {
		conn, err := f(ctx, network, address)
		if err == nil {
			d.mark(conn)
		}
		return conn, err
	}
	var dialer net.Dialer
	if d.attributes != (attributes{}) {
		dialer.Control = d.control // before the first packet
	}
	return dialer.DialContext(ctx, network, address)
}

// dialed is the set of open connections.
type dialed struct {
	mu     sync.Mutex
	conns  map[*dialedConn]struct{}
	closed bool
}

type dialedConn struct {
	net.Conn
	set *dialed
}

func (d *dialed) add(conn net.Conn) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		conn.Close()
		return nil, fmt.Errorf("sspolicy: dial: %w", ErrClosed)
	}
	if d.conns == nil {
		d.conns = make(map[*dialedConn]struct{})
	}
	dc := &dialedConn{conn, d}
	d.conns[dc] = struct{}{}
	return dc, nil
}

// Close closes the connection.
func (c *dialedConn) Close() error {
	c.set.mu.Lock()
	delete(c.set.conns, c)
	c.set.mu.Unlock()
	return c.Conn.Close()
}

// Dialed returns the connection that package net, or Options.DialContext, made.
func (c *dialedConn) Dialed() net.Conn { return c.Conn }

// CloseWrite closes the sending direction, if the connection supports that.
func (c *dialedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("sspolicy: half close of a %T: %w", c.Conn, errors.ErrUnsupported)
}

// close closes all connections, and those still to come.
func (d *dialed) close() {
	d.mu.Lock()
	d.closed = true
	conns := d.conns
	d.conns = nil
	d.mu.Unlock()
	for c := range conns {
		c.Conn.Close()
	}
}
