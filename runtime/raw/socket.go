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

// A PeerVerify says how to verify the certificates of the peer. With QueryPeer,
// [Socket.State] has the result and the chain of the peer.
type PeerVerify = transport.PeerVerify

// The ways to verify the certificates of the peer; see package transport.
const (
	VerifyAuto = transport.VerifyAuto
	VerifyNone = transport.VerifyNone
	QueryPeer  = transport.QueryPeer
	VerifyPeer = transport.VerifyPeer
)

// A Config holds the TLS settings of a stream. The zero value follows the policy.
type Config struct {
	// Verify says how to verify the peer. With VerifyNone and QueryPeer an attacker
	// on the network can impersonate the peer.
	Verify PeerVerify

	// TLS has settings that the policy does not have, such as the certificate of a
	// server. Zero fields come from the policy: the roots, for servers too; the
	// client certificate; the host name. The minimum version is at least TLS 1.2.
	// Verify replaces InsecureSkipVerify, ClientAuth and GetConfigForClient, which
	// are ignored. TLS must not be modified afterwards.
	TLS *tls.Config

	// Later leaves a connection that the stream makes unencrypted until StartTLS,
	// even if the policy sets tls.
	Later bool

	// ModeChanged is called when the mode has changed: before a handshake, and when
	// an encrypted connection, or one in its handshake, has ended by itself. It is
	// a callback of the stream, like State.
	ModeChanged func(*Socket, Mode) policy.Result

	// Encrypted is called after each handshake, before data is sent or received
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
	// VerifyError is why the verification failed with QueryPeer, or nil if it
	// succeeded.
	VerifyError error
}

// A Socket controls the connections of a raw stream. Its methods are safe for
// concurrent use, also from callbacks, and do not wait for callbacks.
type Socket struct {
	adopt  *adoption   // nil if the stream makes its own connections
	server *tls.Config // of the policy's server_cert; nil for a client, or without TLS

	mu        sync.Mutex
	buffered  func() int // bytes buffered by a runtime.Conn; nil without one
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

// Adopt makes a new stream use an unencrypted connection that the program has made
// or accepted: CREATING, CONNECTING and CONNECTED follow at once. If role is
// TLSClient or TLSServer, a TLS handshake precedes CONNECTED, whatever the policy's
// tls; with Unencrypted, StartTLS or StartServerTLS can start TLS later. The
// endpoint of the policy only provides the name for verifying a certificate. When
// the connection has ended the stream does not reconnect. The stream closes conn;
// if NewStream fails the caller must. The option is for one stream.
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

// Of returns the socket of a raw stream, which is a [runtime.Stream] or a
// [runtime.Conn].
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

// SetConfig sets the TLS settings of the stream, from the next handshake on.
func (k *Socket) SetConfig(c Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config = c
}

// State describes the current or latest connection.
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

// StartTLS starts TLS as a client on an unencrypted connection. Payload that Tx has
// returned, or Write accepted, is sent in clear before; Tx is not called, and Write
// does not return, until the handshake is complete and Encrypted has returned. No
// payload is lost or reordered. If the handshake fails, the connection ends with a
// *HandshakeError.
//
// After agreeing to TLS, the peer must send nothing more in clear. unread is the
// number of bytes after its agreement that the program has received from Rx or
// buffered. If it is not 0, or the runtime holds such bytes, StartTLS ends the
// connection with ErrPlaintext and returns that error. A call from outside the
// callbacks does not count the bytes of a running Rx: use only what arrives after
// Encrypted.
//
// With ErrNotConnected and ErrEncrypted the call had no effect.
func (k *Socket) StartTLS(unread int) error {
	return k.start(TLSClient, startClient, unread, nil)
}

// StartServerTLS is like [Socket.StartTLS], as a server. goAhead, if any, is sent
// in clear before the handshake, such as the answer to STARTTLS. The program must
// not send it itself, since the peer may begin the handshake before the call.
// Without a certificate in the Config it returns ErrNoCertificate and has no
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

// CloseWrite closes the sending direction after all data that was requested to be
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
