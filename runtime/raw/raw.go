// Package raw is the transport for streamtypes whose protocol is raw: bytes, over
// TCP, TLS and unix sockets, with no idea of messages. CONNECTED comes when they
// can flow; over TLS, when the handshake is done.
//
// Rx gets pieces as they come, with no flags, and the flags that Tx returns mean
// nothing, as in lws. One Tx follows each RequestTx. When the peer has ended what
// it sends, what the program has asked to send by then still goes out, and then
// the connection has ended, with [io.EOF].
//
// A [Socket] is what there is beside payload: TLS that starts later, what is known
// of the peer, half close, and connections that the program has made itself.
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

// Errors to compare with [errors.Is].
var (
	// ErrNotConnected: there is no connection that TLS could start on.
	ErrNotConnected = errors.New("sspolicy: raw: not connected")
	// ErrEncrypted: TLS has started already.
	ErrEncrypted = errors.New("sspolicy: raw: TLS has started already")
	// ErrPlaintext: there is more plaintext than there may be when TLS starts.
	// Whoever can put something into the connection might have sent it, for it to
	// be taken for what came under TLS (RFC 3207 section 6, CVE-2011-0411).
	ErrPlaintext = errors.New("sspolicy: raw: plaintext from the peer that TLS was not to start after")
	// ErrNoCertificate: the server side of TLS has no certificate to show.
	ErrNoCertificate = errors.New("sspolicy: raw: no certificate for the server side of TLS")
	// ErrNoPeerCertificate: the peer has shown no certificate; see State.
	ErrNoPeerCertificate = errors.New("sspolicy: raw: the peer has no certificate")
	// ErrAdopted: the connection of the program has ended, and there is no other.
	ErrAdopted = errors.New("sspolicy: raw: the adopted connection has ended")
)

// A HandshakeError says that TLS could not be started. It wraps what crypto/tls
// says, such as a [tls.CertificateVerificationError] or a [tls.AlertError].
type HandshakeError struct {
	Mode Mode
	Err  error
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("sspolicy: raw: TLS handshake (%v): %v", e.Mode, e.Err)
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Transport is a [transport.Transport] for raw. It may be given to any number of
// contexts.
type Transport struct{}

// New returns a transport.
func New() *Transport { return &Transport{} }

// Protocols returns raw.
func (*Transport) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolRaw} }

// Prepare refuses what has no place in a stream of bytes.
func (*Transport) Prepare(s *transport.Setup) (transport.Connector, error) {
	if s.Stream.Auth != nil {
		return nil, fmt.Errorf("%w: use_auth over raw", transport.ErrUnsupported)
	}
	return connector{s}, nil
}

type connector struct{ setup *transport.Setup }

// Close does nothing: no connection is kept.
func (connector) Close() error { return nil }

// Run makes a connection, or takes the one that the program has made, and carries
// it until its end.
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
		// To connect needs more stack than an idle connection is to keep.
		var dialing sync.WaitGroup
		dialing.Go(func() { t := l.Target(); conn, err = n.setup.Dialer.Dial(ctx, t.Network, t.Address()) })
		if dialing.Wait(); err != nil {
			return err
		}
	}
	return newSession(ctx, n.setup, l, k, conn).run()
}

// An adoption is a connection of the program's.
type adoption struct {
	mu   sync.Mutex
	conn net.Conn // nil once it has been taken
}

func (a *adoption) take() net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	conn := a.conn
	a.conn = nil
	return conn
}

// end closes a connection that nobody has taken.
func (a *adoption) end() {
	if conn := a.take(); conn != nil {
		conn.Close()
	}
}
