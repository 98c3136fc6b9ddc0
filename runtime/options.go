package runtime

import (
	"context"
	"fmt"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A CallOption is a setting of [Context.Fetch] and [Context.Open].
type CallOption interface{ CallOption() }

// A StreamOption is a setting of a new stream: of [Context.NewStream]. Most are
// CallOptions too. The packages of transports have more of them.
type StreamOption interface{ StreamOption() }

// A MetadataOption sets metadata of a new stream before its first state. It is
// made by WithMetadata, or by the type that a generated file has for a streamtype.
type MetadataOption struct {
	pairs     []string // name, value, name, value
	skipEmpty bool
}

// CallOption marks a CallOption.
func (MetadataOption) CallOption() {}

// StreamOption marks a StreamOption.
func (MetadataOption) StreamOption() {}

// WithMetadata sets the metadata item of that name.
func WithMetadata(name, value string) MetadataOption {
	return MetadataOption{pairs: []string{name, value}}
}

// WithFields sets metadata items given as name, value, name, value. An empty
// value is not set. It is for generated files.
func WithFields(pairs ...string) MetadataOption {
	return MetadataOption{pairs: pairs, skipEmpty: true}
}

// A streamOption changes a stream before its first state.
type streamOption func(*Stream) error

func (streamOption) StreamOption() {}

// WithPeerTxCredit makes the flow control of a stream manual over h2 and h3: on
// each connection no more than n bytes of payload, at least 1, are delivered
// until AddPeerTxCredit allows more; the text between the parts of a multipart
// response needs no credit. The peer may send ahead of it, over h2 up to 4 KiB and
// over h3 up to 4 MiB. Other protocols ignore it, as in lws, which calls it
// manual_initial_tx_credit.
func WithPeerTxCredit(n uint32) StreamOption {
	return streamOption(func(s *Stream) error {
		s.credit = transport.NewCredit(uint64(max(n, 1)))
		return nil
	})
}

// WithContext sets the context that [Hooks] get. Fetch and Open set their own.
func WithContext(ctx context.Context) StreamOption {
	return streamOption(func(s *Stream) error {
		s.hooksContext = ctx
		return nil
	})
}

// apply applies options to a new stream.
func (s *Stream) apply(options []StreamOption) error {
	for _, o := range options {
		var err error
		switch o := o.(type) {
		case MetadataOption:
			err = s.SetAll(o)
		case streamOption:
			err = o(s)
		case transport.Option:
			if p := s.t.stream.Carrier(); p != o.Protocol {
				return fmt.Errorf("%w: an option for %v with a streamtype of %v", ErrUnsupported, o.Protocol, p)
			}
			s.attach(o)
		default:
			err = fmt.Errorf("%w: an option of type %T", ErrUnsupported, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// An attachment is what a transport keeps with a stream.
type attachment struct {
	data any
	transport.Option
}

func (s *Stream) attach(o transport.Option) {
	s.attached = &attachment{o.Data(), o}
	s.machine.Accepted = o.Accepted
	if o.Connect {
		s.machine.Start()
	}
}

// TransportData returns what the transport keeps with the stream over all of its
// connections, or what make returned on the first call. It is for the functions
// of a transport's package that take a stream, such as raw.Of.
func (s *Stream) TransportData(make func() any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached == nil {
		s.attached = &attachment{data: make()}
	}
	return s.attached.data
}
