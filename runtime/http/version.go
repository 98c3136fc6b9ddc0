package http

import (
	"crypto/tls"
	"net/http"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Version is a version of HTTP that another package can speak. All that makes
// streams of requests is the same: headers, credentials, bodies, redirects,
// states.
type Version struct {
	Protocol policy.Protocol

	// RoundTripper returns what makes the requests of all streamtypes that may
	// share connections. It is called once for each such set. It opens nothing.
	RoundTripper func(Connections) RoundTripper
}

// Connections are what requests have in common that may share connections.
type Connections struct {
	Env *transport.Env
	TLS *tls.Config // to be cloned, and given a name and protocols; nil means without TLS

	// Ping and Hangup are how long a connection may go without proof that it works
	// before it is probed, and before it is given up; 0 is never.
	Ping, Hangup time.Duration
}

// A RoundTripper makes requests, by any number of goroutines at a time.
//
// The context of a request ends it at any time, until its body has been closed.
// Its URL may have an Opaque path. It is not to follow redirects, ask for
// compression or keep cookies; and to send it again, if at all, only where it is
// certain that the server has done nothing with it.
type RoundTripper interface {
	http.RoundTripper

	// Close closes all connections. There are no requests then, but where the
	// client certificate has changed: those are left to end by themselves.
	Close() error
}

// NewVersion returns a transport for a version of HTTP that this package itself
// does not speak.
func NewVersion(v Version, o ...Option) *Transport { return newVersion(&v, o) }
