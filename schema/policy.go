package schema

import (
	"slices"
	"strings"
)

// A Policy is a view of a document: its definitions and references, with names
// resolved. It leaves out values of the wrong shape, which [Validate] reports.
type Policy struct {
	Document    *Document
	Settings    []*Setting    // scalars of the top-level object, in the order of the text
	Definitions []*Definition // in the order of the text
	References  []*Reference  // in the order of the text

	byName    map[definitionName][]*Definition
	bySection map[Section][]*Definition

	definitions slab[Definition]
	settings    slab[Setting]
	references  slab[Reference]
}

type definitionName struct {
	section Section
	name    string
}

// A Definition is an entry of a section.
type Definition struct {
	Section  Section
	Name     string
	NameSpan Span   // of the name in the definition
	Value    *Value // an object, or the string of a certificate
	Settings []*Setting

	// Unreadable is set if lws does not read the form of the definition, such as a
	// trust store in the form {"name": ["cert"]} of lws's README.
	Unreadable bool

	keys uint64 // union of the keyBit of Settings; most calls of Get are for absent keys
}

// keyBit maps a key to one of 64 bits.
func keyBit(key string) uint64 {
	if key == "" {
		return 1
	}
	return 1 << ((7*len(key) + int(key[0]) + 3*int(key[len(key)-1])) % 64)
}

// A Setting is a key of a definition with its value.
type Setting struct {
	Key    *Key // nil if the key is unknown
	Member *Member
}

// is reports whether the setting has this key. It reads the member only if the key
// is unknown, since the table of keys stays in the CPU cache.
func (s *Setting) is(key string) bool {
	if s.Key != nil {
		return s.Key.Name == key
	}
	return s.Member.Key == key
}

// A Reference is a use of a definition by its name in another one.
type Reference struct {
	From *Definition
	Key  *Key
	Span Span // of the name
	Name string

	// Target is the last definition of exactly this name before the reference or,
	// for MatchUnchecked, in the policy. It is nil if there is none.
	Target *Definition

	// Later is the first definition of this name after the reference. It is set
	// only if Target is nil.
	Later *Definition
}

// NewPolicy returns a view of the document.
func NewPolicy(d *Document) *Policy {
	p := &Policy{Document: d, byName: map[definitionName][]*Definition{}, bySection: map[Section][]*Definition{}}
	for _, m := range d.Root.Members() {
		s := Section(m.Key)
		switch info, ok := sections[s]; {
		case !ok || s == Top:
			p.Settings = append(p.Settings, &Setting{LookupKey(Top, m.Key), m})
		default:
			for _, e := range m.Value.Elems() {
				if info.keyed {
					for _, def := range e.Value.Members() {
						p.define(s, def.Key, def.Name.Span, &def.Value)
					}
				} else {
					p.defineNamed(s, &e.Value)
				}
			}
		}
	}
	p.link()
	return p
}

// define adds a definition and its settings. The caller must keep to the order of
// the text, since references resolve to earlier definitions.
func (p *Policy) define(s Section, name string, at Span, v *Value) *Definition {
	d := p.definitions.new()
	*d = Definition{Section: s, Name: name, NameSpan: at, Value: v}
	d.Settings = make([]*Setting, 0, len(v.Members()))
	keys := keysOf(s)
	for _, m := range v.Members() {
		set := p.settings.new()
		*set = Setting{keys[m.Key], m}
		d.Settings = append(d.Settings, set)
		d.keys |= keyBit(m.Key)
		if set.Key != nil && set.Key.Ref != Top {
			if m.Value.Kind == String {
				p.refer(d, set.Key, &m.Value)
			}
			for _, e := range m.Value.Elems() {
				if e.Value.Kind == String {
					p.refer(d, set.Key, &e.Value)
				}
			}
		}
	}
	p.Definitions = append(p.Definitions, d)
	n := definitionName{s, name}
	p.byName[n] = append(p.byName[n], d)
	p.bySection[s] = append(p.bySection[s], d)
	return d
}

// defineNamed adds a definition whose name is the value of its member "name".
func (p *Policy) defineNamed(s Section, v *Value) {
	for _, m := range v.Members() {
		if m.Key == "name" && m.Value.Kind == String {
			p.define(s, m.Value.Text(), m.Value.Span, v)
			break
		}
	}
	for _, m := range v.Members() {
		if s == TrustStores && LookupKey(s, m.Key) == nil && m.Value.Kind == ArrayKind {
			p.define(s, m.Key, m.Name.Span, &m.Value).Unreadable = true
		}
	}
}

func (p *Policy) refer(from *Definition, k *Key, v *Value) {
	r := p.references.new()
	*r = Reference{From: from, Key: k, Span: v.Span, Name: v.Text()}
	if k.Match != MatchUnchecked {
		if before := p.byName[definitionName{k.Ref, r.Name}]; len(before) > 0 {
			r.Target = before[len(before)-1]
		}
	}
	p.References = append(p.References, r)
}

// link sets Target or Later of the references that have no target yet.
func (p *Policy) link() {
	for _, r := range p.References {
		if r.Target != nil {
			continue
		}
		if defs := p.byName[definitionName{r.Key.Ref, r.Name}]; len(defs) == 0 {
			continue
		} else if r.Key.Match == MatchUnchecked {
			r.Target = defs[len(defs)-1]
		} else {
			r.Later = defs[0]
		}
	}
}

// Lookup returns the definitions of exactly this name, in the order of the
// text.
func (p *Policy) Lookup(s Section, name string) []*Definition {
	return p.byName[definitionName{s, name}]
}

// Section returns the definitions of a section, in the order of the text. The
// caller must not change the slice.
func (p *Policy) Section(s Section) []*Definition { return p.bySection[s] }

// Get returns the last setting of a key, which is the one that counts in lws, or
// nil.
func (d *Definition) Get(key string) *Setting {
	if d.keys&keyBit(key) == 0 {
		return nil
	}
	for i := len(d.Settings) - 1; i >= 0; i-- {
		if d.Settings[i].is(key) {
			return d.Settings[i]
		}
	}
	return nil
}

// Text returns the text of a scalar setting, or "".
func (d *Definition) Text(key string) string {
	if s := d.Get(key); s != nil {
		return s.Member.Value.Text()
	}
	return ""
}

// Bool reports whether a setting is true, or a value of another type that
// unambiguously means true.
func (d *Definition) Bool(key string) bool {
	value, _ := d.flag(key)
	return value == "true"
}

// Unclear reports whether a setting has a value that is not a boolean and does not
// unambiguously stand for one.
func (d *Definition) Unclear(key string) bool {
	_, ok := d.flag(key)
	return !ok
}

func (d *Definition) flag(key string) (value string, ok bool) {
	s := d.Get(key)
	switch {
	case s == nil:
		return "false", true
	case s.Member.Value.Object != nil || s.Member.Value.Array != nil:
		return "", false
	case s.Member.Value.Kind == Bool:
		return s.Member.Value.Raw(), true
	}
	return s.Key.convert(s.Member.Value.Text())
}

// Protocol returns the protocol of a streamtype: h1 if it names none, as in lws, or
// the protocol that another name stands for. It returns "" for an unknown protocol.
func (d *Definition) Protocol() string {
	s := d.Get("protocol")
	if s == nil {
		return "h1"
	}
	name := s.Member.Value.Text()
	if !slices.Contains(s.Key.Enum, name) {
		name, _ = s.Key.Replacement(name)[s.Key.Name].(string)
	}
	return name
}

// String describes the definition for messages, such as `streamtype "a"`.
func (d *Definition) String() string {
	return d.Section.Noun() + " " + QuoteName(d.Name)
}

// QuoteName quotes a name for a message and shortens a very long one.
func QuoteName(name string) string {
	const most = 60
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	return Quote(name)
}
