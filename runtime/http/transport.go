// Package http is the transport for streamtypes whose protocol is h1 or h2. It
// speaks HTTP/1.1, over TCP, TLS and unix sockets, and HTTP/2 over TLS, by
// means of net/http.
//
// An h1 stream asks for "http/1.1" in its TLS handshake, an h2 stream for "h2",
// and a server that does not agree is unreachable. An h2 stream without TLS
// speaks HTTP/1.1, as in lws.
//
// Connections are kept for the next request. They are shared only between
// streams of the same context, trust store and protocol. No proxy is taken
// from the environment, no compression is asked for, and no cookie kept. The
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
	trust *tls.Config // nil: without TLS
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
			if path, ok := unixPath(addr); ok {
				return k.c.Dial(ctx, "unix", path)
			}
			return k.c.Dial(ctx, network, addr)
		},
		// A dial, and with it the handshake, goes on when the attempt that
		// wanted it has given up, so it needs a limit of its own.
		TLSHandshakeTimeout: k.c.ConnectTimeout(),
		DisableCompression:  true,
		MaxIdleConnsPerHost: maxIdlePerHost,
		IdleConnTimeout:     idleTimeout,
		Protocols:           new(http.Protocols),
	}
	if k.trust != nil {
		t.TLSClientConfig = k.trust.Clone()
	}
	if k.h2 {
		t.Protocols.SetHTTP2(true)
		t.TLSClientConfig.NextProtos = []string{"h2"}
		t.TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != "h2" {
				return errNoH2
			}
			return nil
		}
	} else {
		t.Protocols.SetHTTP1(true)
		if k.trust != nil {
			t.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
	}
	return t
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
