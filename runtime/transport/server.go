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

// A Server is a Transport that also executes streamtypes whose policy says server.
type Server interface {
	Transport

	// Listen opens the port of a streamtype and returns at once. Peers that connect
	// wait until Serve. An error wraps ErrUnsupported, ErrNoCredentials or
	// ErrEndpoint if that is the reason, or is that of the system. The program's
	// stream then gets no state.
	Listen(*ServerSetup) (Listener, error)
}

// A ServerSetup is the Setup of a listener.
type ServerSetup struct {
	*Setup

	// Limits has no zero fields; a negative field means no limit.
	Limits Limits

	// Verify is how certificates of clients are verified; nil means VerifyNone, and over
	// raw what the Config of package raw says.
	Verify *ClientVerify

	// Handler answers requests in place of the program's callbacks, or is nil. A
	// transport returns ErrUnsupported for a type that it does not know.
	Handler any

	socket  net.Listener // provided by the program, or nil
	options []Option
}

// Data returns what the program's Option of a protocol holds, or nil.
func (s *ServerSetup) Data(p policy.Protocol) any {
	for _, o := range s.options {
		if o.Protocol == p {
			return o.Data()
		}
	}
	return nil
}

// Transport returns the transport of the context that speaks a protocol, or nil.
func (s *ServerSetup) Transport(p policy.Protocol) Transport { return s.config.Transport(p) }

// A Listener is an open port. Serve is called once, unless Close comes first. The
// other methods may be called from any goroutine, more than once.
type Listener interface {
	// Addr returns the address of the port; with port 0 in the policy, that which
	// the system has chosen.
	Addr() net.Addr

	// Serve makes a stream for each connection, or for each request, by Accept. It
	// returns nil after Close or Shutdown, and otherwise why nothing more can be
	// accepted.
	Serve(Acceptor) error

	// Shutdown closes the port, and ends connections as gently as the protocol
	// allows. It returns nil when there are none left, or the error of ctx.
	Shutdown(ctx context.Context) error

	// Close closes the port, and every connection that has no stream. Streams end
	// their own.
	Close() error
}

// An Acceptor makes the streams of a listener. It may be called from any goroutine.
type Acceptor interface {
	// Accept makes a stream, and delivers CREATING and CONNECTING on the calling
	// goroutine. An error means that the connection is to be closed: the program
	// refuses it, or the listener is closed.
	Accept(Peer) (Accepted, error)
}

// A Peer is the other end of an accepted connection.
type Peer struct {
	Local, Remote net.Addr
	TLS           *tls.ConnectionState // nil without TLS, and over raw; see raw.Socket

	// VerifyError is why the certificate of the client is not valid, if such clients
	// are accepted; ErrNoPeerCertificate if it has none.
	VerifyError error

	// HangUp, if not nil, is called once, on a goroutine of its own, when the stream
	// ends the connection. It makes blocked calls of the transport return.
	HangUp func()
}

// An Accepted is the Link of an accepted stream, and takes the place of Run: the
// connection begins with Accept and ends with End. It needs no goroutine in between.
//
// Over ws and raw, Connected follows Accept; over ws, Upgrade comes before it. Over
// HTTP each request is Begin, Rx and
// RxEnd for its body, Reply, Tx for the body of the response, and Complete.
type Accepted interface {
	Link

	// Context is done when the stream ends the connection.
	Context() context.Context

	// Begin begins a transaction. Metadata becomes what the request has, and
	// nothing else: the items method, path and auth, those with the name of a URL
	// argument, and those mapped to a header. Begin delivers CONNECTED if it is the
	// first, and SERVER_TXN.
	Begin(Request) error

	// Upgrade sets the metadata to what the request has, as Begin does, and delivers
	// SERVER_UPGRADE.
	Upgrade(Request) error

	// Reply returns what the program has answered by now.
	// If send is set, the head of the answer is about to be sent, and the program
	// cannot change it any more.
	Reply(send bool) Reply

	// Complete ends the transaction.
	Complete()

	// End reports the end of the connection; err is why, or nil if that is how it
	// should end. It delivers DISCONNECTED, if there was CONNECTED, and DESTROYING.
	// It must be called once, and no other method after it.
	End(err error)
}

// A Request is the head of a request to a server.
type Request struct {
	Method string
	Path   string // without the query, percent-decoded
	Query  url.Values
	Auth   string // the Authorization header

	// Header returns the value of a header by its name in any case, or "". It must
	// be callable from any goroutine.
	Header func(name string) string
}

// A Reply is the answer of the program to a request.
type Reply struct {
	Status  int      // HTTP status; 404 if the program has not acknowledged the request
	Acked   bool     // the program has acknowledged it
	Length  uint64   // bytes of the body, as announced; 0 means unknown
	Sends   bool     // the program has requested Tx, so there is a body
	Content *Content // the whole body; nil means that Tx provides it
}

// Content is the body of a response that the program provides as a whole. A range of
// it may be sent, or none if the client has it already.
type Content struct {
	io.ReadSeeker
	Name     string // its extension is that of the media type, unless metadata has one
	Modified time.Time
}

// Limits bound what the peers of a listener may use. 0 means the default, and less
// than 0 no limit.
type Limits struct {
	HeaderBytes   int           // head of a request; default 64 KiB
	BodyBytes     int64         // body of a request; default 16 MiB
	HeaderTimeout time.Duration // from the first byte of a request to the end of its head, and for a TLS handshake; default 10 s
	IdleTimeout   time.Duration // without progress in a request or response, and between requests, default 60 s; over raw, without a byte either way, default 10 min
	Connections   int           // at a time; more wait; default 10,000
	Streams       int           // at a time on an h2 connection; default 100
	MessageBytes  int64         // of a ws message; default 16 MiB
	AcceptRate    int           // new connections per second; more wait; default 2,000
}

func (l Limits) orDefaults(p policy.Protocol) Limits {
	idle := time.Minute
	if p == policy.ProtocolRaw { // who sends, and when, is up to the program
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
	Verify  *ClientVerify // nil means VerifyNone, and over raw what its Config says
	Handler any
}

// ServerSetup returns the setup of a listener.
func (h Host) ServerSetup(s *Setup, c ServerConfig, options ...Option) *ServerSetup {
	return &ServerSetup{Setup: s, Limits: c.Limits.orDefaults(s.Stream.Protocol), Handler: c.Handler, Verify: c.Verify, socket: c.Socket, options: options}
}
