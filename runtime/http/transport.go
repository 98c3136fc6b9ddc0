// Package http is the transport for streamtypes whose protocol is h1 or h2. It
// speaks them over TCP, TLS and unix sockets, by means of net/http.
//
// An h1 stream asks for "http/1.1" in its TLS handshake, an h2 stream for "h2",
// and a server that does not agree is unreachable. An h2 stream without TLS
// speaks HTTP/2 from the first byte on (RFC 9113 section 3.3).
//
// Connections are kept for the next request. They are shared only between
// streams of the same context, proxy, trust store, client certificate and
// protocol. No proxy is taken from the environment, no compression is asked for, and no cookie kept. The
// only headers sent beside Host, and those that frame a body, are those that
// the policy asks for.
package http

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
)

// idleTimeout is how long a connection is kept without a request.
const idleTimeout = 30 * time.Second

// maxIdlePerHost is how many connections to one host are kept.
const maxIdlePerHost = 256

// Transport is a [runtime.Transport] for h1 and h2. It may be given to any
// number of contexts.
type Transport struct {
	mu    sync.Mutex
	pools map[poolKey]*pool
}

// New returns a transport.
func New() *Transport { return &Transport{pools: make(map[poolKey]*pool)} }

// Protocols returns h1 and h2.
func (t *Transport) Protocols() []runtime.Protocol {
	return []runtime.Protocol{runtime.ProtocolH1, runtime.ProtocolH2}
}

// A poolKey says which connections may be shared.
type poolKey struct {
	c     *runtime.Context
	proxy *runtime.Proxy // nil: none
	trust *tls.Config    // nil: without TLS
	h2    bool
}

// A pool is a set of connections.
type pool struct {
	*http.Transport
	users int // connectors; guarded by the mu of Transport
}

// pool returns the pool of that key, for one more connector to use.
func (t *Transport) pool(k poolKey) *pool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.pools[k]
	if p == nil {
		p = &pool{Transport: newTransport(k)}
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
		p.CloseIdleConnections()
	}
}

func newTransport(k poolKey) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if g, ok := ctx.Value(repeatKey{}).(*repeatGuard); ok && g.dials.Add(1) > maxDials {
				return nil, errRepeated
			}
			if path, ok := unixPath(addr); ok {
				return k.c.Dial(ctx, "unix", path)
			}
			return k.c.DialVia(ctx, k.proxy, network, addr)
		},
		// A dial, and with it the handshake, goes on when the attempt that
		// wanted it has given up, so it needs a limit of its own: a little more
		// than that of an attempt, which so ends by its own.
		TLSHandshakeTimeout: k.c.ConnectTimeout() + k.c.ConnectTimeout()/4,
		DisableCompression:  true,
		MaxIdleConnsPerHost: maxIdlePerHost,
		IdleConnTimeout:     idleTimeout,
		Protocols:           new(http.Protocols),
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

// maxDials is how many connections one request over h2 may make: the second
// one is for a request that found a kept connection dead.
const maxDials = 2

// A repeatGuard is the context of a request over h2. When a server resets such
// a request with PROTOCOL_ERROR, net/http makes a connection and sends it again,
// at once and without end; but when to try again is for the policy to say.
type repeatGuard struct {
	context.Context
	dials atomic.Int32
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
	if !p.Protocols.HTTP1() {
		req = req.WithContext(&repeatGuard{Context: req.Context()})
	}
	return p.Transport.RoundTrip(req)
}

// net/http tells connections apart by the host of the URL. A unix socket gets
// one that can be no name or address, and that its path can be had from.

func unixHost(path string) string { return "+" + hex.EncodeToString([]byte(path)) }

func unixPath(addr string) (path string, ok bool) {
	host, ok := strings.CutPrefix(addr, "+")
	if !ok {
		return "", false
	}
	host, _, _ = strings.Cut(host, ":")
	b, err := hex.DecodeString(host)
	return string(b), err == nil
}
