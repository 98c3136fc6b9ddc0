// Package http is the transport for streamtypes whose protocol is h1 or h2, over
// TCP, TLS and unix sockets. It has its own connections; messages are read and
// written by net/http for HTTP/1.1, and by golang.org/x/net/http2 for HTTP/2.
//
// An h1 stream offers "http/1.1" in its TLS handshake, an h2 stream "h2"; a server
// that does not agree is unreachable. An h2 stream without TLS sends HTTP/2 from
// the first byte (RFC 9113 section 3.3).
//
// Connections are kept for later requests. Streams share a connection only if they
// have the same context, proxy, priority, type of service, trust store, client
// certificate and protocol, and over h2 the same validity times. Proxies in
// environment variables are ignored, and no compression is requested. Requests
// contain the headers that the policy requires, Host, and those that frame a body,
// but no others.
//
// With the option [Server] it also serves, with the server of net/http.
package http

import (
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Transport is a [transport.Transport] for h1 and h2. Any number of contexts may
// use it.
type Transport struct {
	version *Version                               // nil: h1 and h2
	signer  func(*transport.Setup) (signer, error) // nil: none, see SigV4

	listen func(*transport.ServerSetup) (transport.Listener, error) // nil: none, see Server

	mu    sync.Mutex
	pools map[poolKey]*pool
}

// An Option adds a feature to a transport that few programs need and that would
// make all of them larger, such as [SigV4] and [Server].
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
