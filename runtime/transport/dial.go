package transport

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Dialer makes the network connections of a streamtype: through its proxy, with
// its priority and type of service. Equal Dialers make equivalent connections, so a
// Dialer can be part of the key of a connection pool. It is safe for concurrent
// use.
type Dialer struct {
	env        *Env
	proxy      *Proxy // nil means none
	attributes attributes
}

// Dialer returns the dialer of a streamtype. The error wraps ErrEndpoint if the
// streamtype's proxy cannot be parsed.
func (e *Env) Dialer(st *policy.StreamType) (Dialer, error) {
	proxy, err := e.proxy(st.SOCKS5Proxy)
	return Dialer{e, proxy, attributesOf(st)}, err
}

// Proxy returns the proxy for the connections, or nil.
func (d Dialer) Proxy() *Proxy { return d.proxy }

// Dial makes a connection; network is "tcp" or "unix". A proxy carries "tcp"
// connections and resolves the name in address. Dial takes at most DialTimeout. The
// connection is closed at the latest when every connector of the context has been
// closed. An error of the proxy is a *ProxyError.
//
// The connection has two additional methods. CloseWrite() error closes the sending
// direction, or returns errors.ErrUnsupported. Dialed() net.Conn returns the
// connection of package net or Options.DialContext.
func (d Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := d.env.dialed.begin(); err != nil {
		return nil, err
	}
	conn, err := d.dial(ctx, network, address)
	return d.env.dialed.add(conn, err)
}

// Dial makes the network connection of an attempt, with TLS if t.TLS is set. t is
// the Link's Target, or the target of a redirect. The handshake offers the
// protocols in alpn (RFC 7301), and fails if the server chooses another one. ctx is
// the context of Run; its trace receives the TLS hooks. Errors are those of
// [Setup.TLS], [Dialer.Dial] and crypto/tls.
func (s *Setup) Dial(ctx context.Context, t *policy.Target, alpn ...string) (net.Conn, error) {
	var config *tls.Config
	if t.TLS {
		shared, err := s.TLS(ctx)
		if err != nil {
			return nil, err // before anything is sent
		}
		config = shared.Clone()
		config.ServerName, config.NextProtos = ServerName(t), alpn
		config.ClientSessionCache = ByAddress(config.ClientSessionCache, t.Network, t.Address())
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
		return nil, Printable(err)
	}
	return secure, nil
}

// Connect calls connect, which makes the connection of an attempt, on a goroutine and
// with a context of its own. The context is done when ctx, the context of Run, is. An
// idle connection thus holds neither the stack nor the contexts of its handshake.
func Connect(ctx context.Context, l Link, connect func(context.Context)) {
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	l.OnEnd(func() { cancel(context.Cause(ctx)) })
	defer l.OnEnd(nil)
	var done sync.WaitGroup
	done.Go(func() { connect(own) })
	done.Wait()
}

// Printable returns err with a printable text of limited length. The text may
// contain data from the peer, such as the names in a certificate: unprintable
// characters are escaped, and a long text is truncated.
func Printable(err error) error {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + "…"
	} else if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return err
	}
	quoted := strconv.Quote(text)
	text = strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`) // a strings.Replacer would add 20 KB to programs
	return &printable{strings.ReplaceAll(text, `\\`, `\`), err}
}

// maxErrorText is the maximum size of the text of a Printable error, in bytes.
const maxErrorText = 1024

type printable struct {
	text string
	err  error
}

func (e *printable) Error() string { return e.text }
func (e *printable) Unwrap() error { return e.err }

// ServerName returns the host name that the certificate of a target must be valid
// for: the host, or "localhost" for a unix socket.
func ServerName(t *policy.Target) string {
	if t.Network == "unix" {
		return "localhost"
	}
	return t.Host
}

// dial makes a connection within the time limit, through the proxy if there is one.
func (d Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	// Transports may let a dial continue after the end of its attempt.
	var cancel context.CancelFunc
	if limit := d.env.DialTimeout(); limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	defer context.AfterFunc(d.env.dials, cancel)()
	p := d.proxy
	if p == nil || network != "tcp" {
		return d.connect(ctx, network, address)
	}
	conn, err := d.connect(ctx, network, p.address)
	if err != nil {
		return nil, &ProxyError{p.address, err}
	}
	if err := p.connect(ctx, conn, address); err != nil {
		Close(conn)
		return nil, &ProxyError{p.address, err}
	}
	return conn, nil
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
