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

// A Mode is the part that a stream plays in TLS.
type Mode uint8

const (
	Unencrypted Mode = iota // there is no TLS, nor is it being started
	Client                  // client of TLS, encrypted or in the handshake
	Server                  // server of TLS, encrypted or in the handshake
)

// String returns the name of the mode.
func (m Mode) String() string {
	switch m {
	case Unencrypted:
		return "unencrypted"
	case Client:
		return "client"
	case Server:
		return "server"
	}
	return "Mode(" + strconv.Itoa(int(m)) + ")"
}

// A PeerVerify says what is asked of the peer's certificates.
type PeerVerify uint8

const (
	// VerifyAuto is VerifyPeer for clients, and QueryPeer for servers.
	VerifyAuto PeerVerify = iota
	// VerifyNone does not want any: a server does not ask for them, a client does
	// not look at them.
	VerifyNone
	// QueryPeer wants to know them, but starts TLS whatever they are: a server
	// asks for them, and State has the peer's chain and what is wrong with it.
	QueryPeer
	// VerifyPeer starts TLS only with a peer whose certificate is good: issued by
	// a root that is trusted, and, for a client, for the name of the host.
	VerifyPeer
)

// A Config says how a stream does TLS. The zero value is what the policy says.
type Config struct {
	// Verify is what is asked of the peer. VerifyNone and QueryPeer let anyone in
	// between pose as the peer: a program that wants them has to know why.
	Verify PeerVerify

	// TLS has what the policy does not say, such as the certificate of a server;
	// nil is nothing. What it leaves open comes from the policy: the roots of the
	// trust store, for servers too; the client certificate; the name of the host.
	// The least version is TLS 1.2 whatever it says. Its InsecureSkipVerify,
	// ClientAuth and GetConfigForClient count for nothing: Verify is what counts.
	// It must not be changed afterwards.
	TLS *tls.Config

	// Later keeps TLS from starting with the connection, where the policy has
	// "tls": the connection is in clear until StartTLS.
	Later bool

	// ModeChanged is told when the mode has changed: before a handshake begins,
	// and when an encrypted connection, or one in its handshake, has ended.
	// It is a callback of the stream like a State callback, and not told any more
	// of what the program itself ends.
	ModeChanged func(*Socket, Mode) policy.Result

	// Encrypted is told, once for each handshake, that it is done, and before
	// anything is sent or received under TLS. It is a callback like ModeChanged.
	Encrypted func(*Socket) policy.Result
}

// A State is what is known of a connection.
type State struct {
	Mode      Mode
	Encrypted bool // the handshake is done

	// TLS is about the latest handshake that was done, until the next attempt to
	// connect. With VerifyNone it has no certificates.
	TLS tls.ConnectionState
	// VerifyError is what is wrong with the peer's certificates under QueryPeer;
	// nil if nothing is.
	VerifyError error
}

// A Socket is what a raw stream has beside payload, over all of its connections.
// Its methods may be called from any goroutine, and from inside callbacks, and
// never wait for one.
type Socket struct {
	adopt *adoption // nil: the stream makes its connections itself

	mu       sync.Mutex
	buffered func() int // bytes that a runtime.Conn has received and not read; nil without one
	config   Config
	state    State
	s        *session // of the connection; nil if there is none
}

// With sets how a new stream does TLS.
func With(c Config) transport.Option {
	return transport.Option{Protocol: policy.ProtocolRaw, Data: func() any { return &Socket{config: c} }}
}

// Adopt makes a new stream one of a connection that the program has made or
// accepted, in clear: CREATING, CONNECTING and CONNECTED follow at once. If the
// policy has "tls", a client's handshake is in between, unless c says Later. The
// endpoint of the policy is not connected to, but its name is that which a
// certificate has to be for. When the connection has ended there is no other,
// whatever the policy says. The stream closes conn; if the stream can not be made
// that is left to the caller, who may do so in any case. It is for one stream.
func Adopt(conn net.Conn, c Config) transport.Option {
	a := &adoption{conn: conn}
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

// socket returns the socket that a stream keeps.
func socket(data func(func() any) any) *Socket {
	k, _ := data(func() any { return &Socket{} }).(*Socket)
	if k == nil {
		return &Socket{} // of another transport: never connected
	}
	return k
}

// SetConfig sets how the stream does TLS from the next handshake on.
func (k *Socket) SetConfig(c Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config = c
}

// State returns what is known of the connection. Without one, that is what was
// known of the latest.
func (k *Socket) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// StartTLS starts TLS as a client, on a connection in clear. Payload that has been
// had from Tx, or been taken by Write, is sent in clear before it; no more is
// asked for, and no Write returns, until the handshake is done and Encrypted has
// been told of it. Nothing is lost or put in another order. If the handshake
// fails the connection has ended, with a *HandshakeError.
//
// From when the peer says that TLS may start it must say no more in clear. unread
// is how many bytes the program has got beyond that, from Rx or into a buffer of
// its own: there must be none. If there are, or the runtime has some, the error
// is ErrPlaintext, and the connection has ended for that reason too. Called from
// outside of the callbacks of a stream, StartTLS does not count what Rx is being
// called with at that moment: there, trust what comes after Encrypted alone.
//
// Else the error is ErrNotConnected or ErrEncrypted, and the call has no effect.
func (k *Socket) StartTLS(unread int) error { return k.start(Client, unread, nil) }

// StartServerTLS is StartTLS as a server. goAhead is what is still to be sent in
// clear, such as the answer to STARTTLS; nil if there is nothing. It is not to be
// sent before, since then the peer may have begun the handshake by the time of
// the call. The Config needs a certificate; without one the error is
// ErrNoCertificate, and the call has no effect.
func (k *Socket) StartServerTLS(unread int, goAhead []byte) error {
	return k.start(Server, unread, goAhead)
}

func (k *Socket) start(mode Mode, unread int, goAhead []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.s
	switch {
	case s == nil || !s.connected || s.over || s.draining:
		return ErrNotConnected
	case k.state.Mode != Unencrypted:
		return ErrEncrypted
	case mode == Server && !hasCertificate(k.config.TLS):
		return ErrNoCertificate
	}
	if unread > 0 || k.buffered != nil && k.buffered() > 0 || s.received != s.l.Delivered() {
		s.end(ErrPlaintext)
		return ErrPlaintext
	}
	// The reader is stopped before the peer may begin the handshake.
	if err := s.base.SetReadDeadline(past); err != nil {
		return err
	}
	k.state.Mode = mode
	s.upgrade = &upgrade{mode, append([]byte(nil), goAhead...)}
	return nil
}

// CloseWrite ends what is sent, when all that the program has asked to send by
// then is: with TCP a FIN, with TLS its close_notify. The peer may go on to send,
// and is read. It is what Conn.CloseWrite does. The error is nil or
// ErrNotConnected.
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

// past is a deadline that makes what waits for the network return.
var past = time.Unix(1, 0)
