// Package raw is the transport for streamtypes whose protocol is raw: bytes over
// TCP, TLS and unix sockets, without messages. CONNECTED is delivered when bytes
// can flow: over TLS, after the handshake.
//
// As in lws, Rx receives pieces as they arrive, without flags, and the flags of Tx
// have no effect; each RequestTx causes one Tx. When the peer closes its direction,
// the data that the program has requested to send is still sent, and then the
// connection ends with [io.EOF].
//
// In a server streamtype, each connection is a stream. A [Socket] controls what is
// not payload: TLS that starts later, information about the peer, half close, and
// connections that the program has made.
//
//	s, err := c.NewStream("smtp", runtime.Handlers{...}, raw.With(raw.Config{Encrypted: ...}))
//	...
//	err = raw.Of(s).StartTLS(0)
package raw

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// Errors for use with [errors.Is].
var (
	// ErrNotConnected is returned when there is no connection.
	ErrNotConnected = errors.New("sspolicy: raw: not connected")
	// ErrEncrypted is returned when TLS has already started.
	ErrEncrypted = errors.New("sspolicy: raw: TLS has already started")
	// ErrPlaintext is returned when plaintext arrives between the request to start
	// TLS and its handshake. An attacker could have injected it, to be mistaken for
	// bytes that arrived under TLS (RFC 3207 section 6, CVE-2011-0411).
	ErrPlaintext = errors.New("sspolicy: raw: plaintext from the peer after the start of TLS")
	// ErrNoCertificate is returned when a TLS server has no certificate.
	ErrNoCertificate = errors.New("sspolicy: raw: no certificate for the server side of TLS")
	// ErrNoPeerCertificate is returned when the peer has sent no certificate; see
	// [State].
	ErrNoPeerCertificate = transport.ErrNoPeerCertificate
	// ErrIdle is returned when a client of a server has neither sent nor received
	// anything for Limits.IdleTimeout.
	ErrIdle = errors.New("sspolicy: raw: the client was idle for too long")
	// ErrAdopted is returned when an adopted connection has ended, after which the
	// stream cannot connect.
	ErrAdopted = errors.New("sspolicy: raw: the adopted connection has ended")
)

// A HandshakeError reports a failed TLS handshake. It wraps the error of
// crypto/tls, such as a [tls.CertificateVerificationError] or a [tls.AlertError].
type HandshakeError struct {
	Mode Mode
	Err  error
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("sspolicy: raw: TLS handshake (%v): %v", e.Mode, e.Err)
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Transport is a [transport.Transport] for raw. Any number of contexts may use it.
type Transport struct {
	client starter                                                  // nil: see TLS
	listen func(*transport.ServerSetup) (transport.Listener, error) // nil: see Server
}

// An Option adds a feature to a [Transport] that not every policy needs and that
// would make each program larger. [Socket.StartTLS] and [Adopt] do not need one.
type Option func(*Transport)

// TLS is an [Option] for policies with clients that connect over TLS.
func TLS(t *Transport) { t.client = startClient }

// Server is an [Option] for policies with servers. Each connection is a stream;
// over TLS, CONNECTED follows the handshake. The stream option [With] sets the
// Config of these streams.
func Server(t *Transport) { t.listen = listen }

// New returns a transport with the given options.
func New(options ...Option) *Transport {
	t := &Transport{}
	for _, o := range options {
		o(t)
	}
	return t
}

// Protocols returns raw.
func (*Transport) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolRaw} }

// Prepare returns the connector of a streamtype. The error wraps ErrUnsupported.
func (t *Transport) Prepare(s *transport.Setup) (transport.Connector, error) {
	switch {
	case s.Stream.Auth != nil:
		return nil, fmt.Errorf("%w: use_auth over raw", transport.ErrUnsupported)
	case s.Stream.TLS && t.client == nil:
		return nil, missing("tls", "TLS")
	}
	return connector{s, t.client}, nil
}

// Listen opens the port of a server streamtype. The error wraps ErrUnsupported
// without the option Server.
func (t *Transport) Listen(s *transport.ServerSetup) (transport.Listener, error) {
	if t.listen == nil {
		return nil, missing("a server", "Server")
	}
	return t.listen(s)
}

var _ transport.Server = (*Transport)(nil)

// missing returns the error for a policy that needs an Option.
func missing(what, option string) error {
	return fmt.Errorf("%w: %s needs New(%s) of package github.com/secure-streams/sspolicy/runtime/raw in Options.Transports",
		transport.ErrUnsupported, what, option)
}

type connector struct {
	setup *transport.Setup
	tls   starter // nil if the policy needs no TLS
}

// Close does nothing: a connection belongs to its stream.
func (connector) Close() error { return nil }

// Run makes a connection, or uses the adopted one, and serves it until its end.
func (n connector) Run(ctx context.Context, l transport.Link) error {
	k := socket(l.Data)
	var conn net.Conn
	var err error
	if k.adopt != nil {
		l.Answer(transport.Answer{Final: true})
		if conn = k.adopt.take(); conn == nil {
			return ErrAdopted
		}
	} else if l.Target().Network == policy.ProtocolRaw.String() {
		return &policy.EndpointError{Why: "the policy has none: the stream is for Adopt"}
	} else {
		transport.Connect(ctx, l, func(ctx context.Context) {
			t := l.Target()
			conn, err = n.setup.Dialer.Dial(ctx, t.Network, t.Address())
		})
		if err != nil {
			return err
		}
		if ctx.Err() != nil { // the dial ignored the context
			transport.Close(conn)
			return context.Cause(ctx)
		}
	}
	s := newSession(ctx, n.setup, l, k, conn)
	switch {
	case k.adopt != nil && k.adopt.role != Unencrypted:
		return s.run(&upgrade{mode: k.adopt.role, start: k.adopt.start})
	case k.adopt == nil && l.Target().TLS:
		return s.run(&upgrade{mode: TLSClient, start: n.tls})
	}
	return s.run(nil)
}

// An adoption is a connection that the program has made.
type adoption struct {
	role  Mode // of a handshake before CONNECTED
	start starter

	mu   sync.Mutex
	conn net.Conn // nil once taken
}

func (a *adoption) take() net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	conn := a.conn
	a.conn = nil
	return conn
}

// end closes the connection unless it was taken.
func (a *adoption) end() {
	if conn := a.take(); conn != nil {
		go transport.Close(conn)
	}
}
