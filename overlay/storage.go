package overlay

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// A family is the protocols that share a part of the union of lws_ss_policy_t.
type family struct {
	prefix    string // of the members
	protocols []string
	strings   []string // the members that are strings, in their order in memory
}

// The families, whose strings lie over each other (4.1 to 5.0,
// include/libwebsockets/lws-secure-streams-policy.h).
var families = []family{
	{"u.http.", []string{"h1", "h2", "h3", "ws"}, []string{
		"method", "url", "multipart_name", "multipart_filename", "multipart_content_type", "blob_header[0]",
	}},
	{"u.mqtt.", []string{"mqtt"}, []string{
		"topic", "subscribe", "will_topic", "will_message", "birth_topic", "birth_message",
	}},
}

// familyOf returns the index of the family of a protocol, or -1.
func familyOf(protocol string) int {
	return slices.IndexFunc(families, func(f family) bool { return slices.Contains(f.protocols, protocol) })
}

// An overlap is the storage of a key in another family.
type overlap struct {
	key *schema.Key // nil if it is not that of one key
}

// name returns what is stored there.
func (o *overlap) name() string {
	if o.key != nil {
		return o.key.Name
	}
	return "others"
}

// alias returns what a streamtype of a protocol has in the storage of a key. It
// returns nil if that is the key itself.
func (l *lws) alias(k *schema.Key, protocol string) *overlap {
	to := familyOf(protocol)
	from := slices.IndexFunc(families, func(f family) bool { return strings.HasPrefix(k.Member, f.prefix) })
	if to < 0 || from < 0 || to == from {
		return nil
	}
	i := slices.Index(families[from].strings, strings.TrimPrefix(k.Member, families[from].prefix))
	if i < 0 {
		return &overlap{}
	}
	member := families[to].prefix + families[to].strings[i]
	for _, other := range schema.Keys(schema.Streams) {
		if other.Member == member && other.In(l.version) {
			return &overlap{key: other}
		}
	}
	return &overlap{}
}

// reinterpret moves the settings of one family to the keys of another that lws keeps
// in the same place.
func (l *lws) reinterpret(before, now string, by *schema.Member) {
	if familyOf(before) == familyOf(now) {
		return
	}
	t := l.current
	var moved []string
	seen := map[string]bool{}
	for _, m := range slices.Clone(t.object.Members) {
		k := schema.LookupKey(schema.Streams, m.Key)
		if k == nil || seen[m.Key] {
			continue
		}
		seen[m.Key] = true
		other := l.alias(k, now)
		if other == nil {
			continue
		}
		remove(t.object, m.Key)
		why := "lws keeps it in the place of " + other.name()
		l.change(t, m.Key, "", &m.Value, nil, by.Span(), why)
		moved = append(moved, m.Key+" as "+other.name())
		if other.key != nil {
			added := add(t.object, len(t.object.Members), setMember(m.Name.Span, other.key.Name, m.Value))
			l.change(t, added.Key, "", nil, &added.Value, by.Span(), "lws keeps it in the place of "+m.Key)
		}
	}
	if moved != nil {
		l.reportf(RuleLWSStorage, schema.Error, by.Value.Span, "lws reads the settings of %s as settings of %s: %s", before, now, strings.Join(moved, ", "))
	}
}
