package raw

import (
	"crypto/tls"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Mode is the role of a stream in TLS.
type Mode uint8

const (
	Unencrypted Mode = iota // without TLS
	TLSClient               // encrypted or in the handshake, as the client
	TLSServer               // encrypted or in the handshake, as the server
)

// String returns the name of the mode.
func (m Mode) String() string {
	switch m {
	case Unencrypted:
		return "unencrypted"
	case TLSClient:
		return "client"
	case TLSServer:
		return "server"
	}
	return "Mode(" + strconv.Itoa(int(m)) + ")"
}

// A PeerVerify selects how the certificates of the peer are verified. Under QueryPeer,
// State has the result and the chain of the peer.
type PeerVerify = transport.PeerVerify

// How the certificates of the peer are verified; see package transport.
const (
	VerifyAuto = transport.VerifyAuto
	VerifyNone = transport.VerifyNone
	QueryPeer  = transport.QueryPeer
	VerifyPeer = transport.VerifyPeer
)

// A Config holds the TLS settings of a stream. The zero value follows the policy.
type Config struct {
	// Verify selects the verification of the peer. With VerifyNone and QueryPeer
	// anyone in between can pose as the peer.
	Verify PeerVerify

	// TLS has settings that the policy does not have, such as the certificate of a
	// server. Fields that are zero come from the policy: the roots, for servers
	// too; the client certificate; the name of the host. The minimum version is
	// at least TLS 1.2. InsecureSkipVerify, ClientAuth and GetConfigForClient are
	// ignored in favor of Verify. TLS must not be changed afterwards.
	TLS *tls.Config

	// Later leaves a connection of the stream's own unencrypted until StartTLS although
	// the policy says tls.
	Later bool

	// ModeChanged is called when the mode has changed: before a handshake, and when
	// an encrypted connection, or one in its handshake, has ended by itself. It is
	// a callback of the stream, like State.
	ModeChanged func(*Socket, Mode) policy.Result

	// Encrypted is called after each handshake, before anything is sent or received
	// under TLS. It is a callback like ModeChanged.
	Encrypted func(*Socket) policy.Result
}

// A State describes a connection.
type State struct {
	Mode      Mode
	Encrypted bool // the handshake is done

	// TLS is the state of the latest complete handshake, until the next attempt to
	// connect. With VerifyNone it has no certificates.
	TLS tls.ConnectionState
	// VerifyError is why the verification failed under QueryPeer; nil if it did
	// not.
	VerifyError error
}

// A Socket controls the connections of a raw stream. Its methods may be called from
// any goroutine, including from callbacks, and do not wait for callbacks.
type Socket struct {
	adopt  *adoption   // nil if the stream makes its connections
	server *tls.Config // of the policy's server_cert; nil for a client, or without TLS

	mu        sync.Mutex
	buffered  func() int // bytes that a runtime.Conn holds; nil without one
	config    Config
	mode      Mode
	encrypted bool     // see State
	handshake *State   // its TLS and VerifyError; nil before a handshake
	s         *session // nil without a connection
}

// With sets the TLS settings of a new stream.
func With(c Config) transport.Option {
	return transport.Option{Protocol: policy.ProtocolRaw, Data: func() any { return &Socket{config: c} }}
}

// Adopt makes a new stream use a connection that the program has made or accepted,
// and that is not encrypted: CREATING, CONNECTING and CONNECTED follow at once. Before
// CONNECTED comes a handshake of TLS as a client or server, if role says so: the
// policy's tls does not matter. With Unencrypted, StartTLS or StartServerTLS can start
// TLS later. The endpoint of the policy only gives the name that a certificate must be
// for. When the connection has ended the stream does not connect again. The stream
// closes conn; if NewStream fails the caller does. The option is for one stream.
func Adopt(conn net.Conn, role Mode, c Config) transport.Option {
	a := &adoption{role: role, start: startClient, conn: conn}
	if role == TLSServer {
		a.start = startServer
	}
	return transport.Option{
		Protocol: policy.ProtocolRaw,
		Data:     func() any { return &Socket{config: c, adopt: a} },
		Connect:  true,
		End:      a.end,
	}
}

// Of returns the socket of a raw stream: of a [runtime.Stream] or [runtime.Conn].
func Of(stream interface{ TransportData(func() any) any }) *Socket {
	k := socket(stream.TransportData)
	if conn, ok := stream.(interface{ Buffered() int }); ok {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.buffered = conn.Buffered
	}
	return k
}

// socket returns the socket of a stream.
func socket(data func(func() any) any) *Socket {
	k, _ := data(func() any { return &Socket{} }).(*Socket)
	if k == nil {
		return &Socket{} // of another transport: never connected
	}
	return k
}

// SetConfig sets the TLS settings of the stream from the next handshake on.
func (k *Socket) SetConfig(c Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config = c
}

// State describes the connection, or without one the latest.
func (k *Socket) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	var s State
	if k.handshake != nil {
		s = *k.handshake
	}
	s.Mode, s.Encrypted = k.mode, k.encrypted
	return s
}

// StartTLS starts TLS as a client, on an unencrypted connection. Payload that Tx has
// returned, or Write accepted, is sent in clear before; Tx is not called, and Write
// does not return, until the handshake is complete and Encrypted has returned. No
// payload is lost or reordered. If the handshake fails, the connection ends with a
// *HandshakeError.
//
// After the peer has agreed to TLS it must send nothing more in clear. unread is
// the number of bytes after its agreement that the program has got from Rx or holds
// in a buffer. If it is not 0, or the runtime holds such bytes, StartTLS ends the
// connection with ErrPlaintext and returns that error. A call from outside of the
// callbacks does not count the bytes of a running Rx: use only what arrives after
// Encrypted.
//
// Other errors are ErrNotConnected and ErrEncrypted; the call has no effect then.
func (k *Socket) StartTLS(unread int) error {
	return k.start(TLSClient, startClient, unread, nil)
}

// StartServerTLS is StartTLS as a server. goAhead, if any, is sent in clear before
// the handshake, such as the answer to STARTTLS. The program must not send it
// itself, since the peer may begin the handshake before the call. Without a
// certificate in the Config the error is ErrNoCertificate, and the call has no
// effect.
func (k *Socket) StartServerTLS(unread int, goAhead []byte) error {
	return k.start(TLSServer, startServer, unread, goAhead)
}

func (k *Socket) start(mode Mode, start starter, unread int, goAhead []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.s
	switch {
	case s == nil || !s.connected || s.over || s.draining:
		return ErrNotConnected
	case k.mode != Unencrypted:
		return ErrEncrypted
	case mode == TLSServer && !hasCertificate(k.config.TLS) && k.server == nil:
		return ErrNoCertificate
	}
	if unread > 0 || k.buffered != nil && k.buffered() > 0 || s.received != s.l.Delivered() {
		s.endLocked(ErrPlaintext)
		return ErrPlaintext
	}
	// Stop the reader before the peer can begin the handshake.
	if err := s.base.SetReadDeadline(past); err != nil {
		return err
	}
	k.mode = mode
	s.upgrade = &upgrade{mode, start, append([]byte(nil), goAhead...)}
	s.l.Recall()
	return nil
}

// CloseWrite closes the sending direction after everything that was requested to be
// sent: TCP sends a FIN, TLS its close_notify. The peer may continue to send.
// Conn.CloseWrite does the same. The error is nil or ErrNotConnected.
func (k *Socket) CloseWrite() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.s
	if s == nil || !s.connected || s.over {
		return ErrNotConnected
	}
	s.closeWrite = true
	s.wake()
	return nil
}

// past is a deadline that ends reads and writes at once.
var past = time.Unix(1, 0)
