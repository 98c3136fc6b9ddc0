package runtime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// metadata holds the metadata of a stream. Values from the peer are kept apart from
// those that the program set, which they must not change, and they are never sent
// back.
type metadata struct {
	items  int            // number of items of the streamtype
	values []policy.Value // items as set by the program, followed by as many sent by the peer
	direct *directHeaders // for direct_proto_str; nil until it is used
}

// newMetadata returns the metadata of a stream of a type.
func newMetadata(t *streamType) *metadata { return &metadata{items: len(t.stream.Metadata)} }

// set sets an item or, with direct_proto_str, a header.
func (m *metadata) set(t *streamType, name, value string) error {
	st := t.stream
	i := policy.ItemIndex(st.Metadata, name)
	use := policy.UseHeader
	switch header := strings.TrimSuffix(name, ":"); {
	case i >= 0:
		use = t.uses[i]
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
	if i < 0 {
		m.newDirectHeaders().put(name, value)
		return nil
	}
	if m.values == nil {
		m.values = make([]policy.Value, m.items)
	}
	m.values[i] = policy.Value{Text: value, Set: true}
	return nil
}

// get returns the value from the peer, else the one that the program set, else "".
func (m *metadata) get(st *policy.StreamType, name string) (string, error) {
	i := policy.ItemIndex(st.Metadata, name)
	switch {
	case i < 0 && st.DirectProtoStr:
		return m.directHeaders().get(strings.TrimSuffix(name, ":")), nil
	case i < 0:
		return "", fmt.Errorf("%w: the policy does not declare it", ErrUnknownMetadata)
	case m == nil:
		return "", nil
	}
	if j := m.items + i; j < len(m.values) && m.values[j].Set {
		return m.values[j].Text, nil
	}
	if i < len(m.values) {
		return m.values[i].Text, nil
	}
	return "", nil
}

// own returns the values that the program has set.
func (m *metadata) own() []policy.Value {
	if m == nil {
		return nil
	}
	return m.values[:min(len(m.values), m.items)]
}

// forClient returns the initial metadata of a client of the listener with m.
func (m *metadata) forClient() *metadata {
	if m == nil {
		return nil
	}
	next := &metadata{items: m.items, values: slices.Clone(m.own())}
	if m.direct != nil {
		next.direct = &directHeaders{set: slices.Clone(m.direct.set)}
	}
	return next
}

// restart resets m, of a client, to the metadata of the listener, for a new
// transaction.
func (m *metadata) restart(listener *metadata) {
	clear(m.values)
	copy(m.values, listener.own())
	if m.direct != nil {
		m.direct.set, m.direct.received = nil, nil
	}
	if listener == nil {
		return
	}
	if m.values == nil {
		m.values = slices.Clone(listener.own())
	}
	if listener.direct != nil {
		m.newDirectHeaders().set = slices.Clone(listener.direct.set)
	}
}

// headerName returns the name of the header that an item is mapped to.
func headerName(header string) string { return strings.TrimSuffix(header, ":") }

// receive sets the value that the peer sent for an item.
func (m *metadata) receive(item int, value string) {
	if len(m.values) < 2*m.items {
		values := make([]policy.Value, 2*m.items)
		copy(values, m.values)
		m.values = values
	}
	m.values[m.items+item] = policy.Value{Text: value, Set: true}
}

// received returns a copy of the values that the peer sent, by item.
func (m *metadata) received() []policy.Value {
	if m == nil || len(m.values) <= m.items {
		return nil
	}
	return slices.Clone(m.values[m.items:])
}

// forgetReceived drops the values from an earlier connection.
func (m *metadata) forgetReceived() {
	if m == nil {
		return
	}
	if len(m.values) > m.items {
		clear(m.values[m.items:])
	}
	if m.direct != nil {
		m.direct.received = nil
	}
}

// moved returns the metadata for another version of the streamtype. It keeps values
// by name.
func (m *metadata) moved(old, t *streamType) (*metadata, error) {
	if m == nil {
		return nil, nil
	}
	next := newMetadata(t)
	if t.stream.DirectProtoStr {
		next.direct = m.direct
	}
	for i, v := range m.own() {
		name := old.stream.Metadata[i].Name
		j := policy.ItemIndex(t.stream.Metadata, name)
		if !v.Set || j < 0 {
			continue
		}
		if err := t.uses[j].Check(v.Text); err != nil {
			return nil, fmt.Errorf("metadata %q: %w", name, err)
		}
		if next.values == nil {
			next.values = make([]policy.Value, next.items)
		}
		next.values[j] = v
	}
	return next, nil
}

// directHeaders holds the headers of a stream whose policy sets direct_proto_str.
type directHeaders struct {
	set      []transport.Field
	received func(name string) string // nil until the peer has answered
}

func (m *metadata) newDirectHeaders() *directHeaders {
	if m.direct == nil {
		m.direct = new(directHeaders)
	}
	return m.direct
}

func (m *metadata) directHeaders() *directHeaders {
	if m == nil {
		return nil
	}
	return m.direct
}

func (d *directHeaders) index(name string) int {
	return slices.IndexFunc(d.set, func(f transport.Field) bool { return strings.EqualFold(f.Name, name) })
}

func (d *directHeaders) put(name, value string) {
	if i := d.index(name); i >= 0 {
		d.set[i].Value = value
		return
	}
	d.set = append(d.set, transport.Field{Name: name, Value: value})
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
		return d.set[i].Value
	}
	return ""
}

// all returns the headers that the program has set so far.
func (d *directHeaders) all() []transport.Field {
	if d == nil {
		return nil
	}
	return slices.Clone(d.set)
}
