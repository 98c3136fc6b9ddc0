package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
)

// Dial makes a network connection on behalf of a transport. The making of it
// takes hardly longer than the limit of an attempt, and the connection does not
// outlive the context. Transports use DialVia for what a proxy may be wanted for.
func (c *Context) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.dial(ctx, network, address, nil, nil)
}

// Dial makes the network connection of the attempt: to its target, by the proxy
// of its streamtype, and with TLS if the target wants it. The handshake asks for
// the protocols of alpn (RFC 7301), and fails if the server agrees on none of
// them but another. ctx is that of Run; the limit of the attempt holds as well.
func (l *Link) Dial(ctx context.Context, alpn ...string) (net.Conn, error) {
	t := l.target
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
	conn, err := l.DialPlain(ctx)
	if err != nil || config == nil {
		return conn, err
	}
	secure := tls.Client(conn, config)
	l.perf.begin(perfTLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	l.perf.end(perfTLS)
	return secure, nil
}

// DialPlain is Dial without TLS, whatever the target wants: for a transport that
// sees to that by itself.
func (l *Link) DialPlain(ctx context.Context) (conn net.Conn, err error) {
	t := l.target
	ctx = l.perf.Context(ctx)
	if t.Network == "unix" {
		conn, err = l.c.Dial(ctx, t.Network, t.Address())
	} else {
		var proxy *Proxy
		if proxy, err = l.c.Proxy(l.s.t.policy); err == nil {
			conn, err = l.c.DialVia(ctx, proxy, t.Network, t.Address())
		}
	}
	if err == nil {
		l.perf.connected(conn)
	}
	return conn, err
}

// dial makes a connection, and then does what there is to do on it before it
// can be used; both within the limit. explain, if any, makes errors of either.
func (c *Context) dial(ctx context.Context, network, address string, then func(context.Context, net.Conn) error, explain func(error) error) (net.Conn, error) {
	// Transports may let a dial go on when the attempt it was for has ended.
	var cancel context.CancelFunc
	if d := c.ConnectTimeout(); d > 0 {
		// A little more, so that the attempt ends by its own limit.
		ctx, cancel = context.WithTimeout(ctx, d+min(d/4, math.MaxInt64-d))
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	conn, err := c.opts.DialContext(ctx, network, address)
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
