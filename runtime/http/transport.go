// Package http is the transport for streamtypes whose protocol is h1 or h2. It
// speaks them over TCP, TLS and unix sockets, by means of net/http.
//
// An h1 stream asks for "http/1.1" in its TLS handshake, an h2 stream for "h2",
// and a server that does not agree is unreachable. An h2 stream without TLS
// speaks HTTP/2 from the first byte on (RFC 9113 section 3.3).
//
// Connections are kept for the next request. They are shared only between
// streams of the same context, proxy, priority and type of service, trust store,
// client certificate and protocol, over h2 also of the same times of validity.
// No proxy is taken from the environment, and no compression is asked for. The
// only headers sent beside Host, and those that frame a body, are those that the
// policy asks for.
package http

import (
	"context"
	"crypto/tls"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime/internal/request"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// idleTimeout is how long a connection is kept without a request.
const idleTimeout = 30 * time.Second

// creditWindow is how many bytes the peer of an h2 stream may send ahead where
// the stream has a credit of its own. net/http can do with less, but would then
// tell the peer of each few bytes that are read.
const creditWindow = 4 << 10

// maxIdlePerHost is how many connections to one host are kept.
const maxIdlePerHost = 256

// Transport is a [transport.Transport] for h1 and h2. It may be given to any
// number of contexts.
type Transport struct {
	version *Version                               // nil: h1 and h2
	signer  func(*transport.Setup) (signer, error) // nil: none, see SigV4

	mu    sync.Mutex
	pools map[poolKey]*pool
}

// An Option is what a transport is to do beside what every one does, such as
// [SigV4]. It is for what is seldom wanted, and not small.
type Option func(*Transport)

// New returns a transport.
func New(o ...Option) *Transport { return newVersion(nil, o) }

func newVersion(v *Version, options []Option) *Transport {
	t := &Transport{version: v, pools: make(map[poolKey]*pool)}
	for _, o := range options {
		o(t)
	}
	return t
}

// Protocols returns h1 and h2, or that of a Version.
func (t *Transport) Protocols() []policy.Protocol {
	if t.version != nil {
		return []policy.Protocol{t.version.Protocol}
	}
	return []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2}
}

// A poolKey says which connections may be shared.
type poolKey struct {
	env    *transport.Env
	dialer transport.Dialer
	unix   string      // the socket that all connections go to; "": none
	trust  *tls.Config // nil: without TLS

	// Over h2 and versions that other packages speak.
	ping, hangup time.Duration // of the policy

	// Over h2 alone.
	h2     bool
	credit bool // streams have a credit of their own
	wakes  bool // swake_validity
}

// A pool is a set of connections.
type pool struct {
	*http.Transport               // nil with other
	other           RoundTripper  // of a Version
	unix            string        // of the key
	limit           time.Duration // of an attempt
	users           int           // connectors; guarded by the mu of Transport

	answered atomic.Uint64 // requests over h2
}

// pool returns the pool of that key, for one more connector to use.
func (t *Transport) pool(k poolKey) *pool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[k]
	if p == nil {
		p = &pool{unix: k.unix, limit: k.env.ConnectTimeout()}
		if t.version != nil {
			p.other = t.version.RoundTripper(Connections{Env: k.env, TLS: k.trust, Ping: k.ping, Hangup: k.hangup})
		} else {
			p.Transport = newTransport(k)
		}
		t.pools[k] = p
	}
	p.users++
	return p
}

// release ends a connector's use of the pool of that key.
func (t *Transport) release(k poolKey, p *pool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(t.pools, k)
		if p.other != nil {
			p.other.Close()
		} else {
			p.CloseIdleConnections()
		}
	}
}

func newTransport(k poolKey) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if g, ok := ctx.Value(repeatKey{}).(*repeatGuard); ok {
				if err := g.dial(ctx); err != nil {
					return nil, err
				}
			}
			if k.unix != "" {
				network, addr = "unix", k.unix
			}
			conn, err := k.dialer.Dial(ctx, network, addr)
			if err == nil && k.h2 {
				conn = watch(k, conn)
			}
			return conn, err
		},
		// A dial, and with it the handshake, goes on when the attempt that
		// wanted it has given up, so it needs a limit of its own.
		TLSHandshakeTimeout:    k.env.DialTimeout(),
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxResponseHeaderBytes: request.MaxHeaderBytes,
		IdleConnTimeout:        idleTimeout,
		Protocols:              new(http.Protocols),
	}
	if k.h2 {
		t.HTTP2 = &http.HTTP2Config{PingTimeout: math.MaxInt64} // hanging up is for a watched
		if k.hangup == 0 || k.ping < k.hangup {
			t.HTTP2.SendPingTimeout = k.ping
		}
		if k.credit {
			t.HTTP2.MaxReceiveBufferPerStream = creditWindow
		}
	}
	if k.trust != nil {
		t.TLSClientConfig = k.trust.Clone()
	}
	switch {
	case !k.h2:
		t.Protocols.SetHTTP1(true)
		if k.trust != nil {
			t.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
	case k.trust == nil:
		t.Protocols.SetUnencryptedHTTP2(true)
	default:
		t.Protocols.SetHTTP2(true)
		t.TLSClientConfig.NextProtos = []string{"h2"}
		t.TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != "h2" {
				return errNoH2
			}
			return nil
		}
	}
	return t
}

// maxSends is how many times a request over h2 may be sent, and maxSendsAnswered
// how many times if the server has answered others meanwhile. More than once it
// is where it found a kept connection dead, and where the server limits the
// streams of a connection: on a new one it hears of the limit too late.
const (
	maxSends         = 16
	maxSendsAnswered = 64
)

// maxDials is how many connections may be made for one request over h2. Others
// may take the place on one before its headers are written.
const maxDials = 256

// A repeatGuard is the context of a request over h2. When a server resets such
// a request with PROTOCOL_ERROR, net/http makes a connection and sends it again,
// at once and without end; but when to try again is for the policy to say.
type repeatGuard struct {
	context.Context
	p           *pool
	answered    uint64       // of p, when the request began
	sent, dials atomic.Int32 // how often its headers were written, connections made

	conn *watched // that the request is on
	at   int64    // since when, as since has it
}

// dial lets one more connection be made, after a pause if the request has been
// sent twice.
func (g *repeatGuard) dial(ctx context.Context) error {
	sent, limit := g.sent.Load(), int32(maxSends)
	if g.p.answered.Load() != g.answered {
		limit = maxSendsAnswered
	}
	if sent >= limit || g.dials.Add(1) > maxDials {
		return errRepeated
	}
	if sent < 2 {
		return nil
	}
	pause := time.NewTimer(time.Duration(sent) * 5 * time.Millisecond)
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

type repeatKey struct{}

// Value returns the guard itself for its key.
func (g *repeatGuard) Value(key any) any {
	if key == (repeatKey{}) {
		return g
	}
	return g.Context.Value(key)
}

// RoundTrip makes one request.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	switch {
	case p.other != nil:
		return p.other.RoundTrip(req)
	case p.Protocols.HTTP1():
		return p.Transport.RoundTrip(req)
	}
	g := &repeatGuard{Context: req.Context(), p: p, answered: p.answered.Load()}
	resp, err := p.Transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(g, &httptrace.ClientTrace{
		GotConn:      func(i httptrace.GotConnInfo) { g.conn, g.at = watchedOf(i.Conn), since() },
		WroteHeaders: func() { g.sent.Add(1) },
	})))
	switch {
	case err == nil:
		p.answered.Add(1)
	case g.conn != nil && context.Cause(g) == transport.ErrTimeout:
		g.conn.unanswered(g.at, p.limit)
	}
	return resp, err
}
