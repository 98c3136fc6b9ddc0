package runtime

import (
	"fmt"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// String returns the name of the streamtype. String and GoString keep fmt from
// printing the contents of a stream, such as metadata.
func (s *Stream) String() string { return s.StreamType().Name }

// GoString is like String, for %#v.
func (s *Stream) GoString() string { return s.String() }

// StreamType returns the definition of the stream in the policy. After an Overlay
// it remains that of the old policy until the next attempt.
func (s *Stream) StreamType() *policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.remote; r != nil && r.described != nil {
		return r.described
	}
	return s.t.stream
}

// Rideshares returns the streamtypes whose messages make up one request of the
// stream, in order: its own, followed by those that share the request (rideshare).
func (s *Stream) Rideshares() []*policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chainLocked()
}

// Rideshare returns the streamtype whose message Tx must provide. Each attempt
// begins with the stream's own. After a Tx ends a message with FlagEOM, it is the
// next of Rideshares.
func (s *Stream) Rideshare() *policy.StreamType {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return s.t.stream
	}
	chain := s.chainLocked()
	return chain[min(int(s.link.ride), len(chain)-1)]
}

// CaptivePortal reports whether the server answered the latest attempt with a
// redirect although the policy sets http_fail_redirect. A captive portal probably
// answered in its place. The redirect is still followed if the policy sets
// allow_redirects.
func (s *Stream) CaptivePortal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.captive
}

// State returns the latest state that was or is being delivered, not counting user
// states.
func (s *Stream) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.State()
}

// Status returns the HTTP status of the response from CONNECTED to DISCONNECTED,
// and 0 otherwise. lws reports it only through the states of http_resp_map.
func (s *Stream) Status() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return 0
	}
	return int(s.link.status)
}

// Retries reports, in the State callback for DISCONNECTED or UNREACHABLE, whether
// another attempt follows without a request of the program: the policy conceals the
// failure, and the callback returns OK. Otherwise the stream becomes idle, with
// ALL_RETRIES_FAILED if the policy has no more retries. In other callbacks it
// returns false.
func (s *Stream) Retries() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.Retries()
}

// Err returns why the latest attempt failed or the latest connection ended, or nil
// if it completed or is still up. Use it for messages, and with [errors.Is] and
// [errors.As]: it wraps ErrTimeout, ErrDisconnected, a *TrustError, or an error of
// net, crypto/tls or the transport.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// SetHandlers replaces the callbacks that are not nil in h, from the next event on.
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

// SetMetadata sets the metadata item of that name. It returns ErrUnknownMetadata if
// the streamtype does not declare the item. The value is kept across reconnects
// until it is set again. Set a value for the endpoint or the URL before CONNECTING
// is delivered; a value for a header can also be set in that callback.
//
// SetMetadata returns ErrMetadataValue for a value that is invalid where the policy
// uses it, such as one with a line break in a header.
//
// If the policy sets direct_proto_str, an undeclared name is the name of a header,
// with or without a trailing colon.
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
// at the first error, which is as for [Stream.SetMetadata].
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

// Metadata returns the value of the metadata item of that name: the value that the
// peer sent in the current or latest connection in the header that the item is
// mapped to, else the one from SetMetadata, else "". For an undeclared name it
// returns ErrUnknownMetadata or, if the policy sets direct_proto_str, the header of
// that name.
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

// TransportData returns the value that the transport keeps with the stream across
// its connections. The first call stores the result of make. TransportData is for
// functions of transport packages that take a stream, such as raw.Of.
func (s *Stream) TransportData(newData func() any) any { return s.data(newData) }
