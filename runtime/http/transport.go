// Package http is the transport for streamtypes whose protocol is h1 or h2, over
// TCP, TLS and unix sockets. It is built on net/http.
//
// An h1 stream offers "http/1.1" in its TLS handshake, an h2 stream "h2"; a server
// that does not agree is unreachable. An h2 stream without TLS sends HTTP/2 from
// the first byte (RFC 9113 section 3.3).
//
// Connections are kept for later requests. Streams share a connection only if they
// have the same context, proxy, priority, type of service, trust store, client
// certificate and protocol, and over h2 the same times of validity. Proxies of the
// environment are ignored, and no compression is requested. Requests contain the
// headers that the policy requires, Host, and those that frame a body, no others.
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

// creditWindow is how many bytes the peer of an h2 stream with a credit may send
// ahead. net/http supports smaller windows, but then updates them for every few
// bytes that are read.
const creditWindow = 4 << 10

// maxIdlePerHost is how many connections without a request are kept for a host.
const maxIdlePerHost = 256

// Transport is a [transport.Transport] for h1 and h2. It may be given to any
// number of contexts.
type Transport struct {
	version *Version                               // nil: h1 and h2
	signer  func(*transport.Setup) (signer, error) // nil: none, see SigV4

	mu    sync.Mutex
	pools map[poolKey]*pool
}

// An Option adds to a transport what few programs need and what would make all of
// them larger, such as [SigV4].
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

// Protocols returns h1 and h2, or the protocol of the Version.
func (t *Transport) Protocols() []policy.Protocol {
	if t.version != nil {
		return []policy.Protocol{t.version.Protocol}
	}
	return []policy.Protocol{policy.ProtocolH1, policy.ProtocolH2}
}

// A poolKey identifies connections that may be shared.
type poolKey struct {
	env    *transport.Env
	dialer transport.Dialer
	unix   string      // path of the socket of all connections, or ""
	trust  *tls.Config // nil means without TLS

	// Not over h1.
	ping, hangup time.Duration // of the policy

	// Over h2 only.
	h2     bool
	credit bool // streams have a credit
	wakes  bool // swake_validity
}

// A pool is a set of connections.
type pool struct {
	*http.Transport               // nil if other is not
	other           RoundTripper  // of a Version
	unix            string        // of the key
	limit           time.Duration // of an attempt
	users           int           // connectors; guarded by the mu of Transport
	answers         atomic.Uint64 // to requests over h2
}

// pool returns the pool for a key, and counts one more user.
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

// release ends one use of a pool. The last one closes it.
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
				conn = newMonitor(k, conn)
			}
			return conn, err
		},
		// A dial and its handshake continue when the attempt that started them
		// has ended, so they have their own limit.
		TLSHandshakeTimeout:    k.env.DialTimeout(),
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxResponseHeaderBytes: request.MaxHeaderBytes,
		IdleConnTimeout:        idleTimeout,
		Protocols:              new(http.Protocols),
	}
	if k.h2 {
		t.HTTP2 = &http.HTTP2Config{PingTimeout: math.MaxInt64} // a monitor closes the connection
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
		next := t.TLSClientConfig.VerifyConnection
		t.TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != "h2" {
				return errNoH2
			}
			if next != nil {
				return next(s)
			}
			return nil
		}
	}
	return t
}

// maxSends limits how often a request over h2 is sent, and maxSendsAnswered does
// if the server answers other requests meanwhile. A request is sent again if a
// kept connection turns out to be dead, or if the server limits the streams of a
// connection: the limit of a new connection arrives after the request was sent.
const (
	maxSends         = 16
	maxSendsAnswered = 64
)

// maxDials limits the connections made for one request over h2. Other requests may
// use up a connection before the headers of this one are written.
const maxDials = 256

// A repeatGuard is the context of a request over h2. When a server resets such a
// request with PROTOCOL_ERROR, net/http sends it again on a new connection, at
// once and without limit. The guard adds pauses and a limit, since retries are
// the policy's business.
type repeatGuard struct {
	context.Context
	p            *pool
	answers      uint64       // of p, when the request began
	sends, dials atomic.Int32 // how often its headers were written, a connection made

	conn *monitor // of the request
	at   int64    // when the request got it, as clock
}

// dial permits one more connection, after a pause if the request was sent twice.
func (g *repeatGuard) dial(ctx context.Context) error {
	sends, limit := g.sends.Load(), int32(maxSends)
	if g.p.answers.Load() != g.answers {
		limit = maxSendsAnswered
	}
	if sends >= limit || g.dials.Add(1) > maxDials {
		return errResets
	}
	if sends < 2 {
		return nil
	}
	pause := time.NewTimer(time.Duration(sends) * 5 * time.Millisecond)
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
	g := &repeatGuard{Context: req.Context(), p: p, answers: p.answers.Load()}
	resp, err := p.Transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(g, &httptrace.ClientTrace{
		GotConn:      func(i httptrace.GotConnInfo) { g.conn, g.at = monitorOf(i.Conn), clock() },
		WroteHeaders: func() { g.sends.Add(1) },
	})))
	switch {
	case err == nil:
		p.answers.Add(1)
	case g.conn != nil && context.Cause(g) == transport.ErrTimeout:
		g.conn.unanswered(g.at, p.limit)
	}
	return resp, err
}
