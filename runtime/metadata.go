package runtime

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

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
	if err := s.setMetadataLocked(name, value); err != nil {
		return fmt.Errorf("sspolicy: set metadata %q of streamtype %q: %w", name, s.t.stream.Name, err)
	}
	return nil
}

func (s *Stream) setMetadataLocked(name, value string) error {
	st := s.t.stream
	i := policy.ItemIndex(st.Metadata, name)
	use := policy.UseHeader
	switch header := strings.TrimSuffix(name, ":"); {
	case i >= 0:
		use = s.t.uses[i]
	case !st.DirectProtoStr:
		return fmt.Errorf("%w: the policy does not declare it", ErrUnknownMetadata)
	case !policy.IsToken(header):
		return fmt.Errorf("%w: the policy does not declare it, and no header has that name", ErrUnknownMetadata)
	default:
		name = header
	}
	if err := use.Check(value); err != nil {
		return err
	}
	switch {
	case s.machine.Gone():
		return ErrClosed
	case i < 0:
		s.directLocked().put(name, value)
		return nil
	case s.meta == nil:
		s.meta = make([]policy.Value, len(st.Metadata))
	}
	s.meta[i] = policy.Value{Text: value, Set: true}
	return nil
}

// SetAll sets the metadata that WithMetadata, or a generated type, holds. It stops
// at the first error, which is one of SetMetadata.
func (s *Stream) SetAll(o MetadataOption) error {
	if len(o.pairs)%2 != 0 {
		return fmt.Errorf("sspolicy: set metadata of streamtype %q: a name without a value", s.StreamType().Name)
	}
	for pair := range slices.Chunk(o.pairs, 2) {
		if o.skipEmpty && pair[1] == "" {
			continue
		}
		if err := s.SetMetadata(pair[0], pair[1]); err != nil {
			return err
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
	st := s.t.stream
	i := policy.ItemIndex(st.Metadata, name)
	if i < 0 && st.DirectProtoStr {
		return s.direct.get(strings.TrimSuffix(name, ":")), nil
	}
	if i < 0 {
		return "", fmt.Errorf("sspolicy: get metadata: %w: streamtype %q declares no %q", ErrUnknownMetadata, st.Name, name)
	}
	if j := len(st.Metadata) + i; j < len(s.meta) && s.meta[j].Set {
		return s.meta[j].Text, nil
	}
	if i < len(s.meta) {
		return s.meta[i].Text, nil
	}
	return "", nil
}

// ownLocked returns the values that the program has set.
func (s *Stream) ownLocked() []policy.Value {
	return s.meta[:min(len(s.meta), len(s.t.stream.Metadata))]
}

// receiveLocked sets what the peer sent for an item. It is kept apart from what
// the program set, which must not change because of it, nor be sent back.
func (s *Stream) receiveLocked(item int, value string) {
	n := len(s.t.stream.Metadata)
	if len(s.meta) < 2*n {
		meta := make([]policy.Value, 2*n)
		copy(meta, s.meta)
		s.meta = meta
	}
	s.meta[n+item] = policy.Value{Text: value, Set: true}
}

// forgetReceivedLocked drops what the peer sent in an earlier connection.
func (s *Stream) forgetReceivedLocked() {
	s.captive = false
	if n := len(s.t.stream.Metadata); len(s.meta) > n {
		clear(s.meta[n:])
	}
	if s.direct != nil {
		s.direct.received = nil
	}
}

// directHeaders are the headers of a stream whose policy says direct_proto_str.
type directHeaders struct {
	set      []directHeader
	received func(name string) string // nil before the peer has answered
}

type directHeader struct{ name, value string }

func (s *Stream) directLocked() *directHeaders {
	if s.direct == nil {
		s.direct = new(directHeaders)
	}
	return s.direct
}

func (d *directHeaders) index(name string) int {
	return slices.IndexFunc(d.set, func(h directHeader) bool { return strings.EqualFold(h.name, name) })
}

func (d *directHeaders) put(name, value string) {
	if i := d.index(name); i >= 0 {
		d.set[i].value = value
		return
	}
	d.set = append(slices.Clip(d.set), directHeader{name, value})
}

// get returns a header as the peer sent it, else as the program set it, else "".
func (d *directHeaders) get(name string) string {
	if d == nil {
		return ""
	}
	if d.received != nil {
		if v := d.received(name); v != "" {
			return v
		}
	}
	if i := d.index(name); i >= 0 {
		return d.set[i].value
	}
	return ""
}

// all returns the headers that the program has set by now.
func (d *directHeaders) all() iter.Seq2[string, string] {
	var set []directHeader
	if d != nil {
		set = slices.Clone(d.set)
	}
	return func(yield func(string, string) bool) {
		for _, h := range set {
			if !yield(h.name, h.value) {
				return
			}
		}
	}
}
