package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
)

// A Dialer makes network connections as the policy wants them for a streamtype:
// by which proxy, and with which priority and type of service. Two Dialers that
// are equal make the same connections, so it can be a part of what says which
// connections may be shared.
type Dialer struct {
	c          *Context
	proxy      *Proxy // nil: none
	attributes attributes
}

// Dialer returns what makes the connections of a streamtype. An error wraps
// ErrEndpoint.
func (c *Context) Dialer(st *StreamType) (Dialer, error) {
	proxy, err := c.Proxy(st)
	return Dialer{c, proxy, st.attributes()}, err
}

// Dial makes a connection on behalf of a transport; network is "tcp" or "unix".
// The making of it takes hardly longer than the limit of an attempt, and the
// connection does not outlive the context. If there is a proxy, "tcp" goes
// through it, and it resolves the name in address.
func (d Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	p := d.proxy
	if p == nil || network != "tcp" {
		return d.dial(ctx, network, address, nil, nil)
	}
	return d.dial(ctx, network, p.address, func(ctx context.Context, conn net.Conn) error {
		return p.connect(ctx, conn, address)
	}, func(err error) error { return &ProxyError{p.address, err} })
}

// Dial makes the network connection of the attempt, by the proxy of its
// streamtype: to Target, or to where the peer redirects, and with TLS if t wants
// it. The handshake asks for the protocols of alpn (RFC 7301), and fails if the
// server agrees on none of them but another. ctx is that of Run; the limit of the
// attempt holds as well.
func (l *Link) Dial(ctx context.Context, t *Target, alpn ...string) (net.Conn, error) {
	var config *tls.Config
	if t.TLS {
		shared, err := l.TLSConfig()
		if err != nil {
			return nil, err // before anything is sent
		}
		config = shared.Clone()
		config.ServerName, config.NextProtos = t.Host, alpn
		if t.Network == "unix" {
			config.ServerName = "localhost"
		}
	}
	conn, err := l.DialPlain(ctx, t)
	if err != nil || config == nil {
		return conn, err
	}
	secure := tls.Client(conn, config)
	done := l.perf.Handshake()
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	done()
	return secure, nil
}

// DialPlain is Dial without TLS, whatever t wants: for a transport that sees to
// that by itself.
func (l *Link) DialPlain(ctx context.Context, t *Target) (net.Conn, error) {
	d, err := l.c.Dialer(l.t.policy)
	if err != nil {
		return nil, err
	}
	conn, err := d.Dial(l.perf.Context(ctx), t.Network, t.Address())
	if err == nil {
		l.perf.connected(conn)
	}
	return conn, err
}

// dial makes a connection, and then does what there is to do on it before it
// can be used; both within the limit. explain, if any, makes errors of either.
func (d Dialer) dial(ctx context.Context, network, address string, then func(context.Context, net.Conn) error, explain func(error) error) (net.Conn, error) {
	c := d.c
	// Transports may let a dial go on when the attempt it was for has ended.
	var cancel context.CancelFunc
	if limit := c.DialTimeout(); limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	conn, err := d.connect(ctx, network, address)
	if err == nil && then != nil {
		if err = then(ctx, conn); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		if explain != nil {
			err = explain(err)
		}
		return nil, err
	}
	return c.dialed.add(conn)
}

// connect makes a connection with the attributes of the streamtype.
func (d Dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if f := d.c.opts.DialContext; f != nil {
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

// Dialed returns the connection as net, or Options.DialContext, has made it.
func (c *dialedConn) Dialed() net.Conn { return c.Conn }

// CloseWrite ends what is sent, if the connection can do that by itself.
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
