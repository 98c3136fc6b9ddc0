package runtime

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"iter"
	"net"
	"time"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A Peer is the client of an accepted stream.
type Peer = transport.Peer

// Limits limit what the clients of a listener may use.
type Limits = transport.Limits

// WithClients makes a listener call f for each accepted stream, before the CREATING
// of that stream, which uses the handlers that f returns. f may be called
// concurrently. Without WithClients, accepted streams use the handlers of the
// listener.
func WithClients(f func(client *Stream) Handlers) StreamOption {
	return listenOption(func(s *listenSettings) { s.accept = f })
}

// WithLimits sets the limits of a listener.
func WithLimits(l Limits) StreamOption {
	return listenOption(func(s *listenSettings) { s.Limits = l })
}

// WithListener makes a listener use a socket in place of the endpoint and port of
// the policy. The stream closes the socket.
func WithListener(l net.Listener) StreamOption {
	return listenOption(func(s *listenSettings) { s.Socket = l })
}

// A PeerVerify says how to verify the certificates of the peer.
type PeerVerify = transport.PeerVerify

// The ways to verify the certificates of the peer; see package transport.
const (
	VerifyAuto = transport.VerifyAuto
	VerifyNone = transport.VerifyNone
	QueryPeer  = transport.QueryPeer
	VerifyPeer = transport.VerifyPeer
)

// WithClientCertificates makes a TLS listener request the certificates of its
// clients. By default none are requested, except over raw, where the Config of
// package raw decides. roots are the trusted authorities; nil means those of the
// operating system. With VerifyPeer, the handshake fails for a client without a
// valid certificate. With QueryPeer and VerifyAuto, which are equivalent here, such
// a client is accepted, and Peer.VerifyError says why its certificate is invalid.
// Browsers ask their users for a certificate.
func WithClientCertificates(v PeerVerify, roots *x509.CertPool) StreamOption {
	return listenOption(func(s *listenSettings) { s.Verify = &transport.ClientVerify{Mode: v, Roots: roots} })
}

// A listenOption is an option of a listener.
type listenOption func(*listenSettings)

// StreamOption marks o as a [StreamOption].
func (listenOption) StreamOption() {}

// drainTime is how long Serve waits for clients when its context is done.
const drainTime = 5 * time.Second

// Serve makes a stream of a server streamtype and serves until ctx is done. It then
// drains the clients, for at most 5 seconds, and returns nil. Otherwise it returns
// the error of NewStream, or the reason why the stream can no longer accept:
// ErrClosed if it was destroyed.
func (c *Context) Serve(ctx context.Context, streamtype string, h Handlers, o ...StreamOption) error {
	s, err := c.NewStream(streamtype, h, o...)
	if err != nil {
		return err
	}
	p := s.portOf()
	if p == nil {
		s.Destroy()
		return fmt.Errorf("sspolicy: serve %q: %w: the streamtype is not a server", streamtype, ErrUnsupported)
	}
	select {
	case <-p.done:
		if err := s.Err(); err != nil {
			return err
		}
		return ErrClosed
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	_ = s.Shutdown(drain)
	return nil
}

// Handle makes a stream of a server streamtype whose requests handler answers: for
// h1 and h2, a net/http.Handler. The policy decides port, TLS and limits; there are
// no accepted streams. The error wraps ErrUnsupported if the transport does not
// support the type of handler.
func (c *Context) Handle(streamtype string, handler any, o ...StreamOption) (*Stream, error) {
	return c.NewStream(streamtype, Handlers{}, append(o[:len(o):len(o)], listenOption(func(s *listenSettings) { s.Handler = handler }))...)
}

// Clients iterates over the streams that a listener has accepted and that exist at
// the time of the call.
func (c *Context) Clients(listener *Stream) iter.Seq[*Stream] {
	return func(yield func(*Stream) bool) {
		p := listener.portOf()
		if p == nil || p.c != c {
			return
		}
		for _, s := range p.clients() {
			if !yield(s) {
				return
			}
		}
	}
}

// Shutdown ends a listener gracefully. It closes the port and lets clients finish:
// over HTTP the requests that have begun, over ws the closing handshake. When no
// clients are left or ctx is done, it calls Destroy. It returns the error of ctx,
// or ErrUnsupported if the stream is not a listener. It must not be called from a
// callback, where it would wait for itself.
func (s *Stream) Shutdown(ctx context.Context) error {
	p := s.portOf()
	if p == nil {
		return fmt.Errorf("sspolicy: shutdown of streamtype %q: %w: it is not a listener", s, ErrUnsupported)
	}
	err := p.listener.Shutdown(ctx)
	s.Destroy()
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Listener returns the stream that accepted s, or nil.
func (s *Stream) Listener() *Stream {
	if s.role == nil || !s.role.accepted {
		return nil
	}
	return s.role.port.stream
}

// Peer returns the client of an accepted stream, or the zero Peer for other
// streams.
func (s *Stream) Peer() Peer {
	if s.role == nil {
		return Peer{}
	}
	return s.role.peer
}

// Ack answers a request with an HTTP status; 0 means 200. It may be called from
// SERVER_TXN until the first piece of the body is sent; the last call counts.
//
// The answer is sent when the whole request has been delivered. It has a body if
// the program has requested Tx by then, or has called Respond. A program that is
// not ready requests Tx anyway and returns TxDontSend. A request without an Ack is
// answered with 404. A request that the program refuses in SERVER_TXN, by a status
// of 400 or more, is answered at once, and its body is not delivered.
//
// The error is ErrNoTransaction, or ErrUnsupported if status is not a final status.
func (s *Stream) Ack(status int) error {
	if status == 0 {
		status = 200
	}
	if status < 200 || status > 999 {
		return fmt.Errorf("sspolicy: ack: %w: status %d", ErrUnsupported, status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answerLocked(func(r *reply) { r.status, r.acked = uint16(status), true })
}

// Respond provides the whole body of the answer, in place of Tx. It implies Ack(0)
// unless the program has called Ack. If the status is 200, the client may request a
// range, or receive 304 if its copy is not older than modified, as with
// net/http.ServeContent. The extension of the file name gives the media type unless
// metadata has one. name and modified may be zero. body is read until the
// transaction has ended or Respond is called again; if it is an [io.Closer], it is
// then closed. After an error the caller keeps it.
func (s *Stream) Respond(name string, modified time.Time, body io.ReadSeeker) error {
	var earlier *transport.Content
	s.mu.Lock()
	defer func() {
		s.mu.Unlock()
		if earlier != nil {
			if c, ok := earlier.ReadSeeker.(io.Closer); ok {
				c.Close()
			}
		}
	}()
	err := s.answerLocked(func(r *reply) {
		earlier = r.content
		r.content = &transport.Content{ReadSeeker: body, Name: name, Modified: modified}
		if !r.acked {
			r.status, r.acked = 200, true
		}
	})
	if err != nil {
		return err
	}
	return s.requestTxLocked()
}

// answerLocked changes the answer to the current request.
func (s *Stream) answerLocked(set func(*reply)) error {
	if s.role == nil || s.role.txn != openTxn {
		return fmt.Errorf("sspolicy: streamtype %q: %w", s.t.stream.Name, ErrNoTransaction)
	}
	set(&s.role.reply)
	return nil
}
