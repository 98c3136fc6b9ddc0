package runtime

import "fmt"

// A StreamOption is a setting of a new stream: of [Context.NewStream], and, as a
// CallOption, of Open and Fetch. It is metadata, or comes from the package of a
// transport.
type StreamOption interface {
	CallOption
	fill(*Stream) error
}

func (o MetadataOption) fill(s *Stream) error { return s.SetAll(o) }

// A TransportOption hands over, with a new stream, what its transport needs
// beside the policy. The package of the transport makes it.
type TransportOption struct {
	// Protocol is that of the transport: with a streamtype of another one the
	// stream is not made, with ErrUnsupported.
	Protocol Protocol
	// Data makes what TransportData is to return, for each stream.
	Data func() any
	// Connect makes an attempt at once, as nailed_up does: CREATING, CONNECTING.
	Connect bool
	// End, if any, is called when the stream, once it has been made, is gone.
	End func()
}

func (o TransportOption) apply(c *call) { c.options = append(c.options, o) }

func (o TransportOption) fill(s *Stream) error {
	if p := s.t.policy.Protocol; p != o.Protocol {
		return fmt.Errorf("%w: an option for %v, and the streamtype is of %v", ErrUnsupported, o.Protocol, p)
	}
	s.data = &transportData{o.Data(), o.End}
	if o.Connect {
		s.asked |= askNailed
	}
	return nil
}

type transportData struct {
	data any
	end  func()
}

// TransportData returns what the transport keeps with the stream, over all of
// its connections: that of a TransportOption, else what make returns, which
// is called once. It is for packages of transports.
func (s *Stream) TransportData(make func() any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.data = &transportData{data: make()}
	}
	return s.data.data
}

// TransportData is that of Stream, for the stream that c is made of.
func (c *Conn) TransportData(make func() any) any { return c.x.s.TransportData(make) }

// Buffered returns how many bytes have been received, and not been read yet.
func (c *Conn) Buffered() int { return c.x.buffered() }

func (x *exchange) buffered() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.waiting
	if x.full {
		n += len(x.buf) - x.off
	}
	return n
}

// TransportData is that of the stream.
func (l *Link) TransportData(make func() any) any { return l.s.TransportData(make) }

// Buffered is that of the stream's Conn; 0 if it has none.
func (l *Link) Buffered() int {
	if l.x == nil {
		return 0
	}
	return l.x.buffered()
}
