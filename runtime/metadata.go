package runtime

import (
	"fmt"
	"net/netip"
	"strings"
)

// A metadataValue is the value of one item of one stream.
type metadataValue struct {
	text string
	set  bool
}

// metadataUse says where the policy puts the value of an item.
type metadataUse uint8

const (
	inHeader metadataUse = 1 << iota // a header, in either direction
	inURL                            // the path or query of a URL
	inName                           // the name that is connected to
	inHost                           // the host or port of a URL that is connected to
	inPath                           // the path of a unix socket or file
)

// check refuses a value that would mean something else than a value where the
// policy puts it. It is checked when it is set, so that the program that sets
// it hears of it. Sources: RFC 9110 section 5.5 for headers, RFC 3986 section
// 3.2 for what ends or splits a host.
func (u metadataUse) check(value string) error {
	if u&(inHeader|inURL|inName|inHost|inPath) != 0 && strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("%w: CR, LF and NUL can not stand in a header, host or URL", ErrMetadataValue)
	}
	if u&inHeader != 0 && strings.ContainsFunc(value, isControl) {
		return fmt.Errorf("%w: a control character can not stand in a header", ErrMetadataValue)
	}
	if u&inPath != 0 && strings.Contains(value, "/") {
		return fmt.Errorf("%w: a part of the path of a unix socket or file can not hold \"/\"", ErrMetadataValue)
	}
	// A ':' would make a URL of a name, and bring a port into a URL; but not
	// that of an IPv6 address, which has more than one.
	if u&inName != 0 || u&inHost != 0 && !isIPv6(value) {
		for i := range len(value) {
			if b := value[i]; !alphanumeric(b) && strings.IndexByte("-._~", b) < 0 {
				return fmt.Errorf("%w: a part of a host name can not hold %q", ErrMetadataValue, value[i])
			}
		}
	}
	return nil
}

// isIPv6 reports whether s is an IPv6 address without a zone, perhaps in
// brackets.
func isIPv6(s string) bool {
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

// isControl reports whether r can not stand in the value of a header.
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func alphanumeric(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
}

// SetMetadata sets the metadata item of that name, which must be one that the
// streamtype declares; else the error is ErrUnknownMetadata. The value stays
// over reconnects, until it is set anew. What goes into the endpoint or the
// URL must be set before CONNECTING is delivered, what goes into a header may
// still be set then.
//
// A value that can not stand where the policy puts it, as one with a line
// break in a header, is refused with ErrMetadataValue.
//
// If the policy says direct_proto_str, a name that is not declared is that of
// a header, with or without a colon at its end.
func (s *Stream) SetMetadata(name, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := itemIndex(s.t.policy.Metadata, name)
	if i < 0 && s.t.policy.DirectProtoStr {
		return s.setDirect(name, value)
	}
	if i < 0 {
		return fmt.Errorf("sspolicy: set metadata: %w: streamtype %q declares no %q", ErrUnknownMetadata, s.t.policy.Name, name)
	}
	if err := s.t.uses[i].check(value); err != nil {
		return fmt.Errorf("sspolicy: set metadata %q of streamtype %q: %w", name, s.t.policy.Name, err)
	}
	if s.gone {
		return fmt.Errorf("sspolicy: set metadata %q of streamtype %q: %w", name, s.t.policy.Name, ErrClosed)
	}
	if s.meta == nil {
		s.meta = make([]metadataValue, len(s.t.policy.Metadata))
	}
	s.meta[i] = metadataValue{value, true}
	return nil
}

// Metadata returns the value of the metadata item of that name: what the peer
// sent in the current or latest connection, if the item is mapped to a header
// that was in the response, else what SetMetadata set, else "". A name that the
// streamtype does not declare is ErrUnknownMetadata, or, if the policy says
// direct_proto_str, that of a header.
func (s *Stream) Metadata(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := itemIndex(s.t.policy.Metadata, name)
	if i < 0 && s.t.policy.DirectProtoStr {
		return s.getDirect(name), nil
	}
	if i < 0 {
		return "", fmt.Errorf("sspolicy: get metadata: %w: streamtype %q declares no %q", ErrUnknownMetadata, s.t.policy.Name, name)
	}
	if j := len(s.t.policy.Metadata) + i; j < len(s.meta) && s.meta[j].set {
		return s.meta[j].text, nil
	}
	if i < len(s.meta) {
		return s.meta[i].text, nil
	}
	return "", nil
}

// own returns the values that the program has set. mu is held.
func (s *Stream) own() []metadataValue {
	return s.meta[:min(len(s.meta), len(s.t.policy.Metadata))]
}

// receive sets what the peer sent for item i. It is kept apart from what the
// program set, which must not change under it, nor be sent back to the peer.
// mu is held.
func (s *Stream) receive(i int, value string) {
	n := len(s.t.policy.Metadata)
	if len(s.meta) < 2*n {
		meta := make([]metadataValue, 2*n)
		copy(meta, s.meta)
		s.meta = meta
	}
	s.meta[n+i] = metadataValue{value, true}
}

// received returns what the peer has sent, by item, in buf if there is room.
func (s *Stream) received(buf []metadataValue) []metadataValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(buf[:0], s.meta[min(len(s.meta), len(s.t.policy.Metadata)):]...)
}

// forget drops what the peer sent in an earlier connection. mu is held.
func (s *Stream) forget() {
	s.captive = false
	if n := len(s.t.policy.Metadata); len(s.meta) > n {
		clear(s.meta[n:])
	}
	if s.direct != nil {
		s.direct.received = nil
	}
}
