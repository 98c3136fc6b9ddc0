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

// Limits bound what the clients of a listener may use.
type Limits = transport.Limits

// WithClients makes a listener call f for each stream that it accepts, before the
// CREATING of that stream, which gets the handlers that f returns. f may be called
// concurrently. Without it, accepted streams have the handlers of the listener.
func WithClients(f func(client *Stream) Handlers) StreamOption {
	return listenOption(func(s *listenSettings) { s.accept = f })
}

// WithLimits sets the limits of a listener.
func WithLimits(l Limits) StreamOption {
	return listenOption(func(s *listenSettings) { s.Limits = l })
}

// WithListener makes a listener use a socket in place of the endpoint and port of
// the policy. The stream closes it.
func WithListener(l net.Listener) StreamOption {
	return listenOption(func(s *listenSettings) { s.Socket = l })
}

// A PeerVerify selects how the certificates of the peer are verified.
type PeerVerify = transport.PeerVerify

// How the certificates of the peer are verified; see package transport.
const (
	VerifyAuto = transport.VerifyAuto
	VerifyNone = transport.VerifyNone
	QueryPeer  = transport.QueryPeer
	VerifyPeer = transport.VerifyPeer
)

// WithClientCertificates makes a listener over TLS request the certificates of its
// clients. Without it none are requested, except over raw, where the Config of package
// raw decides. roots are the authorities that are trusted; nil means those of the
// operating system. A client without a valid certificate fails in the handshake under
// VerifyPeer. Under QueryPeer, and VerifyAuto which is the same, it is accepted, and
// Peer.VerifyError says why it is not valid. Browsers ask their users for a certificate.
func WithClientCertificates(v PeerVerify, roots *x509.CertPool) StreamOption {
	return listenOption(func(s *listenSettings) { s.Verify = &transport.ClientVerify{Mode: v, Roots: roots} })
}

// A listenOption sets something of a listener.
type listenOption func(*listenSettings)

// StreamOption marks a StreamOption.
func (listenOption) StreamOption() {}

// drainTime is how long Serve waits for clients when its context is done.
const drainTime = 5 * time.Second

// Serve makes a stream of a server streamtype and serves until ctx is done. It then
// drains the clients, for 5 s at most, and returns nil. The error is that of
// NewStream, or why nothing more could be accepted; ErrClosed if the stream was
// destroyed.
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
// no accepted streams. The error wraps ErrUnsupported if the transport does not know
// the type of handler.
func (c *Context) Handle(streamtype string, handler any, o ...StreamOption) (*Stream, error) {
	return c.NewStream(streamtype, Handlers{}, append(o[:len(o):len(o)], listenOption(func(s *listenSettings) { s.Handler = handler }))...)
}

// Clients iterates over the streams that a listener has accepted and that are not
// destroyed, as they are at the call.
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

// Shutdown ends a listener gently. It closes the port, and lets clients complete
// what they are doing: over HTTP the requests that have begun, over ws the closing
// handshake. When none are left, or ctx is done, it is Destroy. The error is that of
// ctx, or ErrUnsupported if the stream is not a listener. In a callback it would
// wait for itself.
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

// Listener returns the stream that has accepted s, or nil.
func (s *Stream) Listener() *Stream {
	if s.role == nil || s.role.peer == nil {
		return nil
	}
	return s.role.port.stream
}

// Peer returns the client of an accepted stream; of other streams, the zero Peer.
func (s *Stream) Peer() Peer {
	if s.role == nil || s.role.peer == nil {
		return Peer{}
	}
	p := *s.role.peer
	p.HangUp = nil
	return p
}

// Ack answers a request with an HTTP status; 0 means 200. It may be called from
// SERVER_TXN on until the first piece of the body is sent, and the last call counts.
//
// The answer is sent when the whole request has been delivered. It has a body if the
// program has requested Tx by then, or has called Respond. A program that is not
// ready requests Tx all the same and returns TxDontSend. A request that is not
// acknowledged is answered with 404. One that is refused in SERVER_TXN, by a status
// from 400 up, is answered at once and its body is not delivered.
//
// The error is ErrNoTransaction, or ErrUnsupported for a number that is no final
// status.
func (s *Stream) Ack(status int) error {
	if status == 0 {
		status = 200
	}
	if status < 200 || status > 999 {
		return fmt.Errorf("sspolicy: ack: %w: status %d", ErrUnsupported, status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answerLocked(func(r *transport.Reply) { r.Status, r.Acked = status, true })
}

// Respond provides the body of the answer as a whole, in place of Tx. It is Ack(0)
// unless the program has called Ack. If the status is 200, the client may get a
// range, or 304 if it has a copy that is not older than modified, as by
// net/http.ServeContent. name is that of a file; its extension gives the media type
// unless metadata has one. Both may be zero. body is read until the transaction has
// ended, or another call of Respond; if it is an [io.Closer] it is closed then. After
// an error it is the caller's.
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
	err := s.answerLocked(func(r *transport.Reply) {
		earlier = r.Content
		r.Content = &transport.Content{ReadSeeker: body, Name: name, Modified: modified}
		if !r.Acked {
			r.Status, r.Acked = 200, true
		}
	})
	if err != nil {
		return err
	}
	return s.requestTxLocked()
}

// answerLocked changes the answer to the present request.
func (s *Stream) answerLocked(set func(*transport.Reply)) error {
	if s.role == nil || s.role.txn != openTxn {
		return fmt.Errorf("sspolicy: streamtype %q: %w", s.t.stream.Name, ErrNoTransaction)
	}
	set(&s.role.reply)
	return nil
}
