package http

import (
	"crypto/tls"
	"net/http"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Version is a version of HTTP whose requests another package makes. Headers,
// credentials, bodies, redirects and states are handled by this package.
type Version struct {
	Protocol policy.Protocol

	// RoundTripper returns the RoundTripper of streamtypes that may share
	// connections. It opens no connection.
	RoundTripper func(Connections) RoundTripper
}

// Connections configure requests that may share connections.
type Connections struct {
	Env *transport.Env
	TLS *tls.Config // without name and protocols; must not be modified; nil means without TLS

	// Ping and Hangup are how long a connection may be silent before it is probed
	// and before it is closed; 0 means forever.
	Ping, Hangup time.Duration
}

// A RoundTripper makes requests. Its methods must be safe for concurrent use.
//
// The context of a request can end it until the response body is closed. The URL
// may have an Opaque path. A RoundTripper does not follow redirects, request
// compression or keep cookies. It resends a request only if the server has
// certainly not processed it.
type RoundTripper interface {
	http.RoundTripper

	// Close closes all connections. It lets running requests complete, which exist
	// only if the client certificate has changed.
	Close() error
}

// NewVersion returns a transport for a Version.
func NewVersion(v Version, o ...Option) *Transport { return newVersion(&v, o) }
