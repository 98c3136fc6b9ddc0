package transport

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Server is a [Transport] that also executes server streamtypes.
type Server interface {
	Transport

	// Listen opens the port of a streamtype and returns at once. Peers that connect
	// wait until Serve. The error is that of the system, or wraps ErrUnsupported,
	// ErrNoCredentials or ErrEndpoint. After an error the program's stream receives
	// no state.
	Listen(*ServerSetup) (Listener, error)
}

// A ServerSetup is the Setup of a listener.
type ServerSetup struct {
	*Setup

	// Limits has no zero fields; a negative field means no limit.
	Limits Limits

	// Verify says how to verify certificates of clients. Nil means VerifyNone or,
	// over raw, the setting in the Config of package raw.
	Verify *ClientVerify

	// Handler answers requests in place of the program's callbacks, or is nil. A
	// transport returns ErrUnsupported for a type that it does not support.
	Handler any

	socket  net.Listener // provided by the program, or nil
	options []Option
}

// Data returns the data of the program's Option for a protocol, or nil.
func (s *ServerSetup) Data(p policy.Protocol) any {
	for _, o := range s.options {
		if o.Protocol == p {
			return o.Data()
		}
	}
	return nil
}

// Transport returns the transport of a protocol in the context, or nil.
func (s *ServerSetup) Transport(p policy.Protocol) Transport { return s.config.Transport(p) }

// A Listener is an open port. Serve is called at most once, and not after Close.
// The other methods are safe for concurrent use, and may be called more than once.
type Listener interface {
	// Addr returns the address of the port. If the policy has port 0, that is the
	// one that the system has chosen.
	Addr() net.Addr

	// Serve calls Accept for each connection, or for each request, to make a
	// stream. It returns nil after Close or Shutdown, and otherwise the reason why
	// it can no longer accept.
	Serve(Acceptor) error

	// Shutdown closes the port, and ends connections as gracefully as the protocol
	// allows. It returns nil when none is left, or the error of ctx.
	Shutdown(ctx context.Context) error

	// Close closes the port and the connections without a stream. Streams end their
	// own.
	Close() error
}

// An Acceptor makes the streams of a listener. It is safe for concurrent use.
type Acceptor interface {
	// Accept makes a stream, and delivers CREATING and CONNECTING on the calling
	// goroutine. After an error the transport must close the connection: the
	// program refuses it, or the listener is closed.
	Accept(Peer) (AcceptedLink, error)
}

// A Peer is the other end of an accepted connection.
type Peer struct {
	Local, Remote net.Addr
	TLS           *tls.ConnectionState // nil without TLS, and over raw; see raw.Socket

	// VerifyError is why the certificate of the client is invalid, if such clients
	// are accepted. It is ErrNoPeerCertificate if the client has none.
	VerifyError error
}

// An AcceptedLink is the Link of an accepted stream. There is no Run: the connection
// begins with Accept and ends with End, and needs no goroutine in between.
//
// Over ws and raw, Connected follows Accept; over ws, Upgrade precedes it. Over
// HTTP each request is Begin, Rx and RxEnd for its body, Reply, Tx for the body of
// the response, and Complete.
type AcceptedLink interface {
	Link

	// Context is done when the stream ends the connection. An idle connection holds less
	// if it is not called; see OnEnd.
	Context() context.Context

	// Begin begins a transaction. It replaces the metadata with the values from the
	// request: the items method, path and auth, those with the name of a URL
	// argument, and those mapped to a header. It delivers CONNECTED for the first
	// transaction, and SERVER_TXN.
	Begin(Request) error

	// Upgrade sets the metadata like Begin, and delivers SERVER_UPGRADE.
	Upgrade(Request) error

	// Reply returns the program's answer so far. If send is set, the head of the
	// answer is about to be sent, and the program can no longer change it.
	Reply(send bool) Reply

	// Complete ends the transaction.
	Complete()

	// End reports the end of the connection. err is the reason, or nil if the
	// connection ended as expected. End delivers DISCONNECTED, if CONNECTED was
	// delivered, and DESTROYING. It must be called once, as the last method.
	End(err error)
}

// A Request is the head of a request to a server.
type Request struct {
	Method string
	Path   string // without the query, percent-decoded
	Query  url.Values
	Auth   string // the Authorization header

	// Header returns the value of a header, or "". Case does not matter. It must be
	// safe for concurrent use.
	Header func(name string) string
}

// A Reply is the program's answer to a request.
type Reply struct {
	Status  int      // HTTP status; 404 if the program has not called Ack
	Acked   bool     // the program has called Ack
	Length  uint64   // announced size of the body in bytes; 0 means unknown
	Sends   bool     // the program has requested Tx, so there is a body
	Content *Content // the whole body; nil means that Tx provides it
}

// Content is the whole body of a response. The client may be sent a range of it, or
// nothing if it already has it.
type Content struct {
	io.ReadSeeker
	Name     string // its extension selects the media type, unless metadata has one
	Modified time.Time
}

// Limits limit what the peers of a listener may use. 0 means the default; a
// negative value means no limit.
type Limits struct {
	HeaderBytes   int           // head of a request; default 64 KiB
	BodyBytes     int64         // body of a request; default 16 MiB
	HeaderTimeout time.Duration // from the first byte of a request to the end of its head, and for a TLS handshake; default 10 s
	IdleTimeout   time.Duration // without progress in a request or response, and between requests; default 60 s; over raw, without a byte either way; default 10 min
	Connections   int           // concurrent connections; others wait; default 10,000
	Streams       int           // concurrent streams on an h2 connection; default 100
	MessageBytes  int64         // of a ws message; default 16 MiB
	AcceptRate    int           // new connections per second; others wait; default 2,000
}

func (l Limits) orDefaults(p policy.Protocol) Limits {
	idle := time.Minute
	if p == policy.ProtocolRaw { // the program decides who sends when
		idle = 10 * time.Minute
	}
	return Limits{
		HeaderBytes:   orDefault(l.HeaderBytes, 64<<10),
		BodyBytes:     orDefault(l.BodyBytes, 16<<20),
		HeaderTimeout: orDefault(l.HeaderTimeout, 10*time.Second),
		IdleTimeout:   orDefault(l.IdleTimeout, idle),
		Connections:   orDefault(l.Connections, 10_000),
		Streams:       orDefault(l.Streams, 100),
		MessageBytes:  orDefault(l.MessageBytes, 16<<20),
		AcceptRate:    orDefault(l.AcceptRate, 2_000),
	}
}

func orDefault[T int | int64 | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return max(v, -1)
}

// A ServerConfig holds the settings of a listener that are not in the policy.
type ServerConfig struct {
	Limits  Limits
	Socket  net.Listener  // replaces the endpoint and port of the policy; nil means none
	Verify  *ClientVerify // nil means VerifyNone or, over raw, the setting in its Config
	Handler any
}

// ServerSetup returns the setup of a listener.
func (h Host) ServerSetup(s *Setup, c ServerConfig, options ...Option) *ServerSetup {
	return &ServerSetup{Setup: s, Limits: c.Limits.orDefaults(s.Stream.Protocol), Handler: c.Handler, Verify: c.Verify, socket: c.Socket, options: options}
}
