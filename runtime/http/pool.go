package http

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

const (
	// idleTimeout is how long a connection is kept without a request.
	idleTimeout = 30 * time.Second

	// maxIdlePerHost is how many connections without a request are kept for a host.
	maxIdlePerHost = 256
)

// A poolKey identifies connections that may be shared.
type poolKey struct {
	env    *transport.Env
	dialer transport.Dialer
	unix   string      // path of the socket of all connections, or ""
	trust  *tls.Config // nil means without TLS

	// Except for h1.
	ping, hangup time.Duration // of the policy

	// Over h2 only.
	h2        bool
	credit    bool // streams have manual flow control
	wakes     bool // swake_validity
	overflows bool // h2q_oflow_txcr
}

// A pool is a set of connections.
type pool struct {
	RoundTripper
	unix  string // of the key
	users int    // connectors; guarded by the mu of Transport
}

// pool returns the pool for a key, and counts one more user.
func (t *Transport) pool(k poolKey) *pool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[k]
	if p == nil {
		p = &pool{unix: k.unix}
		switch {
		case t.version != nil:
			p.RoundTripper = t.version.RoundTripper(Connections{Env: k.env, TLS: k.trust, Ping: k.ping, Hangup: k.hangup})
		case k.h2:
			p.RoundTripper = newH2Pool(k)
		default:
			p.RoundTripper = newH1Pool(k)
		}
		t.pools[k] = p
	}
	p.users++
	return p
}

// release ends one use of a pool. The last one closes it.
func (t *Transport) release(k poolKey, p *pool) {
	t.mu.Lock()
	p.users--
	last := p.users == 0
	if last {
		delete(t.pools, k)
	}
	t.mu.Unlock()
	if last {
		p.Close()
	}
}

// A conn is a connection to a server, with the connection below its TLS.
type conn struct {
	net.Conn
	network net.Conn
}

// abort closes the connection at once, even if it is in use.
func (c conn) abort() { c.network.Close() }

// leave closes the connection in the background, with the alert of TLS.
func (c conn) leave() { transport.CloseLater(c.Conn) }

// dial makes a connection for requests to an address. With TLS it offers the
// protocol alpn.
func (k *poolKey) dial(ctx context.Context, address, alpn string) (conn, error) {
	network, host := "tcp", address
	if k.unix != "" {
		network, address, host = "unix", k.unix, "localhost:"
	}
	c, err := k.dialer.Dial(ctx, network, address)
	if err != nil || k.trust == nil {
		return conn{c, c}, err
	}
	config := k.trust.Clone()
	config.NextProtos = []string{alpn}
	config.ClientSessionCache = transport.ByAddress(config.ClientSessionCache, network, address)
	if config.ServerName, _, err = net.SplitHostPort(host); err != nil {
		c.Close()
		return conn{}, err
	}
	if limit := k.env.DialTimeout(); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	secure := tls.Client(c, config)
	trace := transport.Trace(ctx)
	trace.TLSHandshakeStart()
	err = secure.HandshakeContext(ctx)
	trace.TLSHandshakeDone(secure.ConnectionState(), err)
	if err != nil {
		c.Close()
		return conn{}, tlsError(err)
	}
	return conn{secure, c}, nil
}

// hostOf returns the address to connect to for a request.
func hostOf(req *http.Request) string {
	host := req.URL.Host
	if host == request.UnixHost {
		return host
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	name, port := req.URL.Hostname(), "80"
	if req.URL.Scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(name, port)
}

// check returns an error for a request that must not be sent. The error does not
// contain values, which may be secret.
func check(req *http.Request) error {
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return &HeaderError{Header: name, Reason: "it is not the name of a header"}
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return &HeaderError{Header: name, Reason: "the value has a control character"}
			}
		}
	}
	return nil
}

// gotConn reports the connection of a request to the trace of its context.
func gotConn(ctx context.Context, c net.Conn, reused bool) {
	if t := httptrace.ContextClientTrace(ctx); t != nil && t.GotConn != nil {
		t.GotConn(httptrace.GotConnInfo{Conn: c, Reused: reused})
	}
}

// getConn reports the beginning of a request to the trace of its context.
func getConn(ctx context.Context, address string) {
	if t := httptrace.ContextClientTrace(ctx); t != nil && t.GetConn != nil {
		t.GetConn(address)
	}
}

// An idleTimer calls a function some time after its connection has become idle. A
// mutex of its owner guards it. It is not stopped when the connection is used,
// since that would cost more than an unnecessary call.
type idleTimer struct {
	since time.Time // when the connection became idle
	at    time.Time // when the timer expires; zero if it does not run
	timer *time.Timer
	call  func()
}

// start is called when the connection becomes idle. It schedules call after at most
// d.
func (t *idleTimer) start(d time.Duration) {
	t.since = time.Now()
	if at := t.since.Add(d); t.at.IsZero() || at.Before(t.at) {
		t.arm(at, d)
	}
}

func (t *idleTimer) arm(at time.Time, d time.Duration) {
	t.at = at
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.call)
	} else {
		t.timer.Reset(d)
	}
}

// expired reports, within call, whether the idle connection has been idle for d. If
// not, it restarts the timer.
func (t *idleTimer) expired(d time.Duration) bool {
	now := time.Now()
	left := d - now.Sub(t.since)
	if left <= 0 {
		t.at = time.Time{}
		return true
	}
	t.arm(now.Add(left), left)
	return false
}

// stop stops the timer.
func (t *idleTimer) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

// errCertificate is returned when a server requests a client certificate after the
// handshake, as apache does for SSLVerifyClient in a location.
var errCertificate = errors.New("sspolicy: the server asks for a client certificate after the TLS handshake, " +
	"which is not supported; let it ask in the handshake (apache: SSLVerifyClient for the virtual host)")

// tlsError returns an error of a connection with a printable text.
func tlsError(err error) error {
	if err == nil {
		return nil
	}
	switch text := err.Error(); text {
	case "local error: tls: no renegotiation", // TLS 1.2
		"tls: received unexpected handshake message of type *tls.certificateRequestMsgTLS13":
		return errCertificate
	}
	return transport.Printable(err)
}
