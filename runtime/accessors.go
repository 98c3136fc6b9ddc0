package runtime

import (
	"fmt"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// String returns the name of the streamtype. It, and GoString, keep fmt from
// printing the contents of a stream, such as metadata.
func (s *Stream) String() string { return s.StreamType().Name }

// GoString is String, for %#v.
func (s *Stream) GoString() string { return s.String() }

// StreamType returns what the policy says about the stream. After an Overlay it
// is what the old policy said, until the next attempt.
func (s *Stream) StreamType() *policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.remote; r != nil && r.described != nil {
		return r.described
	}
	return s.t.stream
}

// Rideshares returns the streamtypes whose messages make up one request of the
// stream, in order: its own, and those that follow by rideshare.
func (s *Stream) Rideshares() []*policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chainLocked()
}

// Rideshare returns the streamtype whose message Tx is to provide. Each attempt
// begins with the stream's own; after a Tx has ended its message with FlagEOM it
// is the next of Rideshares.
func (s *Stream) Rideshare() *policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return s.t.stream
	}
	chain := s.chainLocked()
	return chain[min(s.link.ride, len(chain)-1)]
}

// CaptivePortal reports whether the server has answered the latest attempt with a
// redirect although the policy says http_fail_redirect: a captive portal has
// probably answered in its place. The redirect is still followed if the policy
// says allow_redirects.
func (s *Stream) CaptivePortal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.captive
}

// State returns the latest state that was delivered, or is being delivered, user
// states excepted.
func (s *Stream) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.State()
}

// Status returns the HTTP status of the response from CONNECTED to DISCONNECTED,
// else 0. lws reports it only through the states of http_resp_map.
func (s *Stream) Status() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return 0
	}
	return s.link.answer.Status
}

// Retries reports, in the State callback for DISCONNECTED or UNREACHABLE, whether another
// attempt follows without the program: the policy conceals the failure, and the callback
// answers OK. Otherwise the stream becomes idle, with ALL_RETRIES_FAILED if the policy has
// given up. In other callbacks it returns false.
func (s *Stream) Retries() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.Retries()
}

// Err returns why the latest attempt failed, or the latest connection ended; nil
// if it did what it was for, or is still good. It is meant for people, and for
// [errors.Is] and [errors.As]: ErrTimeout, ErrDisconnected, a *TrustError, and
// the errors of net, crypto/tls and the transport.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// SetHandlers replaces the callbacks that are not nil in h, from the next event
// on.
func (s *Stream) SetHandlers(h Handlers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine.Gone() {
		return
	}
	if h.State != nil {
		s.h.State = h.State
	}
	if h.Rx != nil {
		s.h.Rx = h.Rx
	}
	if h.Tx != nil {
		s.h.Tx = h.Tx
	}
	if h.RxClosed != nil {
		s.h.RxClosed = h.RxClosed
	}
	if h.TxFailed != nil {
		s.h.TxFailed = h.TxFailed
	}
}

// SetMetadata sets the metadata item of that name, which the streamtype must
// declare; otherwise the error is ErrUnknownMetadata. The value stays over
// reconnects until it is set again. A value for the endpoint or the URL must be
// set before CONNECTING is delivered; a value for a header can still be set then.
//
// A value that must not stand where the policy puts it, such as one with a line
// break in a header, is refused with ErrMetadataValue.
//
// If the policy says direct_proto_str, an undeclared name is that of a header,
// with or without a final colon.
func (s *Stream) SetMetadata(name, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.setMetadataLocked(name, value)
	if err == nil && s.machine.Gone() {
		err = ErrClosed
	}
	if err != nil {
		return fmt.Errorf("sspolicy: set metadata %q of streamtype %q: %w", name, s.t.stream.Name, err)
	}
	return nil
}

func (s *Stream) setMetadataLocked(name, value string) error {
	if s.remote == nil {
		return s.metadataLocked().set(s.t, name, value)
	}
	if err := s.remote.setMetadata(s.t, name, value); err != nil {
		return err
	}
	if s.link != nil {
		s.link.signalLocked()
	}
	return nil
}

// SetAll sets the metadata that WithMetadata, or a generated type, holds. It stops
// at the first error, which is one of SetMetadata.
func (s *Stream) SetAll(o MetadataOption) error {
	if len(o.pairs)%2 != 0 {
		return fmt.Errorf("sspolicy: set metadata of streamtype %q: a name without a value", s.StreamType().Name)
	}
	for i := 0; i < len(o.pairs); i += 2 {
		if name, value := o.pairs[i], o.pairs[i+1]; value != "" || !o.skipEmpty {
			if err := s.SetMetadata(name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// Metadata returns the value of the metadata item of that name: what the peer
// sent in the current or latest connection, if it sent a header that the item is
// mapped to, else what SetMetadata set, else "". An undeclared name is
// ErrUnknownMetadata, or, if the policy says direct_proto_str, that of a header.
func (s *Stream) Metadata(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	get := s.meta.get
	if s.remote != nil {
		get = s.remote.metadata
	}
	value, err := get(s.t.stream, name)
	if err != nil {
		return "", fmt.Errorf("sspolicy: get metadata %q of streamtype %q: %w", name, s.t.stream.Name, err)
	}
	return value, nil
}

// TransportData returns what the transport keeps with the stream over all of its
// connections, or what make returned on the first call. It is for the functions
// of a transport's package that take a stream, such as raw.Of.
func (s *Stream) TransportData(make func() any) any { return s.data(make) }
