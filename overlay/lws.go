package overlay

import (
	"slices"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// The rules that Apply reports if Options.LWS is set.
const (
	RuleLWSRefused     = "lws-overlay-refused"
	RuleLWSIncomplete  = "lws-overlay-incomplete"
	RuleLWSTarget      = "lws-overlay-target"
	RuleLWSUnreachable = "lws-overlay-unreachable"
	RuleLWSPhantom     = "lws-overlay-phantom"
	RuleLWSFlag        = "lws-overlay-flag"
	RuleLWSNull        = "lws-overlay-null"
	RuleLWSList        = "lws-overlay-list"
	RuleLWSSection     = "lws-overlay-section"
	RuleLWSTrustStore  = "lws-overlay-trust-store"
	RuleLWSStorage     = "lws-overlay-storage"
)

// The releases that changed the parser; see lws_ss_policy_parse and lejp_parse.
const (
	braceFirst  = "4.3" // a text that does not begin with "{" is a file name
	emptyObject = "4.4" // {} is not an error
)

// An lws applies fragments as the overlay function of an lws release does
// (lws_ss_policy_overlay, lib/secure-streams/policy-json.c). It parses a fragment
// like a policy, except that a streamtype whose name begins with the name of an
// existing one changes that one in place.
type lws struct {
	*editor
	version schema.Version
	live    []*target // the streamtypes of the active policy, newest first
	*run
}

// A run is the state of the parser while it reads a fragment.
type run struct {
	fragment *schema.Document
	end      int  // the offset of the first syntax error, where parsing ends
	over     bool // the parser has stopped
	defined  []*fragmentDefinition
	current  *target // the streamtype that receives settings; nil if no stream uses it
	length   int     // of the last string or number; true and false do not reset it
}

// A fragmentDefinition is a definition that the parser has read from a fragment.
type fragmentDefinition struct {
	section schema.Section
	name    string
	at      schema.Span
	entry   schema.Value // an object with this definition alone
	value   *schema.Value
	used    bool   // by a later reference
	as      string // its name in the result, set when it is used
}

func newLWS(e *editor, v schema.Version) *lws {
	l := &lws{editor: e, version: v}
	for _, d := range slices.Backward(schema.NewPolicy(e.result).Section(schema.Streams)) {
		if d.Value.Kind == schema.ObjectKind {
			l.live = append(l.live, &target{schema.Streams, d.Name, d.NameSpan, d.Value.Object})
		}
	}
	return l
}

// apply applies one fragment.
func (l *lws) apply(f *schema.Document) {
	l.run = &run{fragment: f, end: len(f.Source.Text) + 1}
	if l.begins() {
		for _, g := range f.Syntax {
			if g.Severity == schema.Error {
				l.end = min(l.end, g.Span.Start)
			}
		}
		l.root()
		l.finish()
	}
	// Report the findings that lws's overlay shares with loading a policy.
	valid := schema.ValidateFragment(f)
	for _, g := range valid {
		if g.Span.End <= l.end && !slices.ContainsFunc(l.diags, func(d schema.Diagnostic) bool { return d.Span == g.Span }) {
			l.report([]schema.Diagnostic{g})
		}
	}
}

// begins reports whether the parser accepts the start of the text as JSON.
func (l *lws) begins() bool {
	text := l.fragment.Source.Text
	root := &l.fragment.Root
	start := schema.Span{Source: l.fragment.Source, Start: 0, End: min(1, len(text))}
	switch {
	case l.version.Has(braceFirst) && !strings.HasPrefix(text, "{"):
		l.reportf(RuleLWSRefused, schema.Error, start, `the text does not begin with "{": lws takes it as the name of a file, and applies nothing`)
	case root.Kind == schema.Missing:
		l.reportf(RuleLWSIncomplete, schema.Error, start, "the text is empty: lws waits for more")
	case root.Kind != schema.ObjectKind:
		l.refuse(root.Span, "a policy is an object")
	case len(root.Object.Members) == 0 && root.Object.Close != "" && !l.version.Has(emptyObject):
		l.refuse(root.Span, "lws "+l.version.String()+" takes an empty object as an error")
	default:
		return true
	}
	return false
}

// refuse reports that lws stops at a position.
func (l *lws) refuse(at schema.Span, why string) {
	l.over = true
	l.reportf(RuleLWSRefused, schema.Error, at, "lws refuses the fragment here: %s; the settings before it stay applied, and the policy in use is freed", why)
}

// read reports whether the parser reads up to the end of a span.
func (l *lws) read(at schema.Span) bool {
	if !l.over && at.End > l.end {
		l.over = true
	}
	return !l.over
}

// finish reports how parsing ended.
func (l *lws) finish() {
	f := l.fragment
	closed := f.Root.Object.Close != ""
	switch at := f.Root.Span.End; {
	case slices.ContainsFunc(l.diags, func(d schema.Diagnostic) bool { return d.Rule == RuleLWSRefused && d.Span.Source == f.Source }):
	case closed && l.end >= at && l.end <= len(f.Source.Text):
		l.reportf(RuleLWSIncomplete, schema.Warning, schema.Span{Source: f.Source, Start: l.end, End: len(f.Source.Text)}, "lws ignores the text after the object")
	case l.end > len(f.Source.Text):
	case cutOff(f.Source.Text[l.end:]):
		l.reportf(RuleLWSIncomplete, schema.Error, schema.Span{Source: f.Source, Start: l.end, End: l.end}, "the text ends here: lws applies what it has read, and waits for more")
	default:
		l.refuse(schema.Span{Source: f.Source, Start: l.end, End: min(l.end+1, len(f.Source.Text))}, "it is not JSON")
	}
	for _, d := range l.defined {
		base, ok := l.defs[entryKey{d.section, d.name}]
		switch {
		case d.used && d.section == schema.TrustStores:
			l.reportf(RuleLWSTrustStore, schema.Error, d.at, "lws opens trust stores only when it sets a policy: TLS with this one of the fragment fails")
		case d.used || d.section == schema.Certs:
		case ok && same(base.value, d.value):
		case ok:
			l.reportf(RuleLWSSection, schema.Warning, d.at, "the streamtypes of the base keep their own %s %s: this one is for later references in the fragment alone", d.section.Noun(), schema.QuoteName(d.name))
		default:
			l.reportf(RuleLWSSection, schema.Warning, d.at, "nothing refers to this %s: only later references in the fragment find it", d.section.Noun())
		}
	}
}

// cutOff reports whether the rest of a text is empty or the start of an incomplete
// string or word.
func cutOff(rest string) bool {
	rest = strings.TrimSpace(rest)
	if inner, ok := strings.CutPrefix(rest, `"`); ok {
		return !strings.Contains(strings.ReplaceAll(inner, `\"`, ""), `"`)
	}
	return strings.HasPrefix("true", rest) || strings.HasPrefix("false", rest) || strings.HasPrefix("null", rest)
}

// root reads the members of the fragment.
func (l *lws) root() {
	for _, m := range l.fragment.Root.Members() {
		if !l.read(m.Name.Span) {
			return
		}
		key := schema.LookupKey(schema.Top, m.Key)
		switch section := schema.Section(m.Key); {
		case key == nil || key.Inert || !key.In(l.version):
		case section == schema.Metrics || section.Noun() == "":
			l.reportf(RuleLWSSection, schema.Warning, m.Name.Span, "%s of a fragment has no effect: lws uses it when it sets a policy", m.Key)
		case section == schema.Streams:
			for _, e := range m.Value.Elems() {
				for _, stream := range e.Value.Members() {
					if !l.read(stream.Name.Span) {
						return
					}
					if l.stream(stream); l.over {
						return
					}
				}
			}
		default:
			for _, e := range m.Value.Elems() {
				l.define(section, &e.Value)
			}
		}
		if !l.read(m.Value.Span) {
			return
		}
	}
}

// define reads a definition in a section other than streamtypes.
func (l *lws) define(s schema.Section, v *schema.Value) {
	if !keyed(s) {
		if name := last(v.Object, "name"); name != nil && l.read(v.Span) {
			d := &fragmentDefinition{section: s, name: name.Value.Text(), at: name.Value.Span, entry: *v, value: v}
			if s == schema.TrustStores {
				l.stack(d)
			}
			l.defined = append(l.defined, d)
			l.length = len(d.name)
		}
		return
	}
	for _, m := range v.Members() {
		if l.read(m.Value.Span) {
			l.defined = append(l.defined, &fragmentDefinition{section: s, name: m.Key, at: m.Name.Span, entry: object(m), value: &m.Value})
			l.length = len(m.Key)
		}
	}
}

// stack resolves the certificates of a trust store.
func (l *lws) stack(d *fragmentDefinition) {
	for _, v := range stackOf(d.value) {
		if l.resolve(schema.Certs, schema.MatchPrefix, v.Text()) == nil {
			l.refuse(v.Span, "no certificate that this fragment defines before begins with "+schema.QuoteName(v.Text()))
			return
		}
	}
}

// stackOf returns the names in the stack of a trust store, which may be a list or
// one name.
func stackOf(store *schema.Value) (names []*schema.Value) {
	stack := last(store.Object, "stack")
	if stack == nil {
		return nil
	}
	if stack.Value.Kind == schema.String {
		return []*schema.Value{&stack.Value}
	}
	for _, e := range stack.Value.Elems() {
		names = append(names, &e.Value)
	}
	return names
}

// resolve returns the newest definition of the fragment that a name refers to, or
// nil. Definitions of the base are out of reach.
func (l *lws) resolve(s schema.Section, match schema.Match, name string) *fragmentDefinition {
	for _, d := range slices.Backward(l.defined) {
		if d.section == s && (d.name == name || match == schema.MatchPrefix && strings.HasPrefix(d.name, name)) {
			return d
		}
	}
	return nil
}

// lookup returns the newest active streamtype whose name begins with name, or nil.
func (l *lws) lookup(name string) *target {
	i := slices.IndexFunc(l.live, func(t *target) bool { return strings.HasPrefix(t.name, name) })
	if i < 0 {
		return nil
	}
	return l.live[i]
}

// stream reads a streamtype.
func (l *lws) stream(m *schema.Member) {
	if m.Key == "" {
		l.over = true
		l.reportf(RuleLWSRefused, schema.Error, m.Name.Span, "lws crashes on this empty name")
		return
	}
	if l.dotted(m) {
		return
	}
	t := l.lookup(m.Key)
	exact := slices.ContainsFunc(l.live, func(t *target) bool { return t.name == m.Key })
	switch {
	case t == nil:
		l.reportf(RuleLWSUnreachable, schema.Error, m.Name.Span, "the policy in use has no streamtype whose name begins with %s: lws reads this one, and no program can open it", schema.QuoteName(m.Key))
	case t.name != m.Key && exact:
		d := l.reportf(RuleLWSTarget, schema.Error, m.Name.Span, "lws changes %s: it is newer than %s, and its name begins with the same text", schema.QuoteName(t.name), schema.QuoteName(m.Key))
		d.Related = []schema.Related{{Span: t.at, Message: "lws changes this"}}
	case t.name != m.Key:
		d := l.reportf(RuleLWSTarget, schema.Error, m.Name.Span, "lws changes %s, whose name begins with %s", schema.QuoteName(t.name), schema.QuoteName(m.Key))
		d.Related = []schema.Related{{Span: t.at, Message: "lws changes this"}}
	}
	l.current = t
	for i, setting := range m.Value.Members() {
		if !l.read(setting.Name.Span) {
			return
		}
		if key := l.key(setting.Key); key == nil {
			l.phantom(setting, m.Value.Members()[i+1:])
		} else if l.value(key, setting); l.over {
			return
		}
		if !l.read(setting.Value.Span) {
			return
		}
	}
}

// dotted reads a streamtype whose name lws splits as a path. It reports whether the
// name is one.
func (l *lws) dotted(m *schema.Member) bool {
	i := strings.LastIndexAny(m.Key, ".[")
	if i < 0 || m.Key[i] == '[' && !l.version.Has("4.4") {
		return false
	}
	l.reportf(RuleLWSPhantom, schema.Error, m.Name.Span, "with %q in the name, lws makes a phantom streamtype of each key in it", m.Key[i:i+1])
	for _, setting := range m.Value.Members() {
		l.current = l.lookup(setting.Key)
	}
	return true
}

// key returns the key of a streamtype that the parser knows by this name, or nil.
func (l *lws) key(name string) *schema.Key {
	k := schema.LookupKey(schema.Streams, name)
	if k == nil || !k.In(l.version) || k.Member == "pvo" { // see the rule options-key
		return nil
	}
	return k
}

// phantom reads a key that the parser does not know: lws makes a streamtype of that
// name.
func (l *lws) phantom(m *schema.Member, rest []*schema.Member) {
	l.current = l.lookup(m.Key)
	if l.current != nil {
		l.reportf(RuleLWSPhantom, schema.Error, m.Name.Span, "lws takes %s for the streamtype %s, whose name begins with it%s",
			schema.QuoteName(m.Key), schema.QuoteName(l.current.name), lostKeys(rest))
	} else {
		l.reportf(RuleLWSPhantom, schema.Error, m.Name.Span, "lws %v makes a phantom streamtype of %s%s", l.version, schema.QuoteName(m.Key), lostKeys(rest))
	}
	l.nested(&m.Value)
}

// lostKeys describes the keys that a streamtype loses to a phantom.
func lostKeys(rest []*schema.Member) string {
	const most = 8
	var names []string
	for _, m := range rest[:min(len(rest), most)] {
		names = append(names, schema.QuoteName(m.Key))
	}
	switch {
	case names == nil:
		return ""
	case len(rest) > most:
		names = append(names, "…")
	}
	return ", which takes every later key: " + strings.Join(names, ", ")
}

// nested reads objects where the parser expects none: lws makes a streamtype for
// each key.
func (l *lws) nested(v *schema.Value) {
	for _, e := range v.Elems() {
		l.nested(&e.Value)
	}
	for _, m := range v.Members() {
		l.current = l.lookup(m.Key)
		l.nested(&m.Value)
	}
}

// value reads the value of a key.
func (l *lws) value(k *schema.Key, m *schema.Member) {
	v := &m.Value
	switch {
	case k.Name == "metadata" && v.Kind == schema.ArrayKind:
		l.metadata(k, m)
	case k.Name == "http_resp_map" && v.Kind == schema.ArrayKind:
		l.statuses(k, m)
	case v.Kind == schema.ObjectKind || v.Kind == schema.ArrayKind:
		l.nested(v)
	case !l.complete(v):
	case k.Is("array"): // deprecated, or not a list
	case k.Ref != schema.Top && k.Match != schema.MatchUnchecked:
		l.reference(k, m)
	case k.Name == "protocol":
		l.protocol(k, m)
	case k.Is("boolean"):
		l.boolean(k, m)
	case k.Is("integer"):
		l.integer(k, m)
	default:
		text, chunks := l.text(v)
		l.note(k, m, `""`)
		if l.current != nil && (len(chunks) > 1 || text != "" || last(l.current.object, k.Name) != nil || v.Kind == schema.String) {
			l.put(k, m, schema.String, schema.Quote(text))
		}
	}
}

// complete reports whether the parser reads all of a scalar.
func (l *lws) complete(v *schema.Value) bool {
	if v.Kind == schema.Missing || v.Kind == schema.Invalid || v.Kind == schema.Number && v.Span.End == len(l.fragment.Source.Text) {
		l.over = true // lws needs the character after a number to end it
	}
	return l.read(v.Span)
}

// chunk is the number of bytes of a string that the parser passes on at a time.
const chunk = schema.MaxString + 1

// text returns the text of a scalar as the parser passes it on: the last piece, and
// all pieces.
func (l *lws) text(v *schema.Value) (string, []string) {
	text := v.Text()
	switch v.Kind {
	case schema.Null:
		return "", []string{""}
	case schema.Bool:
		text = map[string]string{"true": "1", "false": "0"}[v.Raw()]
		return text[:min(len(text), l.length)], []string{text[:min(len(text), l.length)]}
	}
	var pieces []string
	for v.Kind == schema.String && len(text) >= chunk {
		pieces, text = append(pieces, text[:chunk]), text[chunk:]
	}
	l.length = len(text)
	return text, append(pieces, text)
}

// note reports a null, which lws reads as a value.
func (l *lws) note(k *schema.Key, m *schema.Member, as string) {
	if m.Value.Kind == schema.Null {
		l.reportf(RuleLWSNull, schema.Warning, m.Value.Span, "null does not remove %s: lws sets it to %s", k.Name, as)
	}
}

// put sets a setting of the current streamtype.
func (l *lws) put(k *schema.Key, m *schema.Member, kind schema.Kind, raw string) {
	if l.current == nil {
		return
	}
	name := k.Name
	if other := l.alias(k, protocol(l.current.object)); other != nil {
		l.reportf(RuleLWSStorage, schema.Error, m.Name.Span, "lws keeps %s in the place of %s of this %s streamtype", k.Name, other.name(), protocol(l.current.object))
		if other.key == nil {
			return
		}
		name = other.key.Name
	}
	l.set(l.current, setMember(m.Name.Span, name, scalar(m.Value.Span, kind, raw)), "")
}

// integer reads a number, or the leading number of a text.
func (l *lws) integer(k *schema.Key, m *schema.Member) {
	text, _ := l.text(&m.Value)
	l.note(k, m, "0")
	n := schema.Wrap(text, k)
	switch {
	case l.current == nil:
	case n == "none": // client_cert -1
		if old := last(l.current.object, k.Name); old != nil {
			l.set(l.current, setMember(m.Name.Span, k.Name, schema.Value{Span: m.Value.Span, Kind: schema.Null}), "")
		}
	case n == "0" && k.Name != "client_cert" && last(l.current.object, k.Name) == nil:
	default:
		l.put(k, m, schema.Number, n)
	}
}

// boolean reads a flag, which is never cleared, or a member, which any value except
// true clears.
func (l *lws) boolean(k *schema.Key, m *schema.Member) {
	isTrue := m.Value.Kind == schema.Bool && m.Value.Raw() == "true"
	if l.current == nil {
		return
	}
	old := last(l.current.object, k.Name)
	set := old != nil && old.Value.Raw() == "true"
	switch {
	case isTrue:
		l.put(k, m, schema.Bool, "true")
	case k.Sticky && set:
		l.reportf(RuleLWSFlag, schema.Error, m.Value.Span, "this does not clear %s: lws only ever sets it", k.Name)
	case set:
		if m.Value.Kind == schema.Null {
			l.note(k, m, "false")
		}
		l.put(k, m, schema.Bool, "false")
	}
}

// protocol reads the protocol. HTTP and MQTT share storage in lws.
func (l *lws) protocol(k *schema.Key, m *schema.Member) {
	text, _ := l.text(&m.Value)
	known := slices.Contains(k.Enum, text) && k.ValueIn(text, l.version)
	if l.current != nil {
		before := protocol(l.current.object)
		l.put(k, m, schema.String, schema.Quote(text))
		if known {
			l.reinterpret(before, text, m)
		}
	}
	if !known {
		l.refuse(m.Value.Span, "lws "+l.version.String()+" has no protocol "+schema.QuoteName(text))
	}
}

// reference reads the name of a definition.
func (l *lws) reference(k *schema.Key, m *schema.Member) {
	name, pieces := l.text(&m.Value)
	var d *fragmentDefinition
	if m.Value.Kind == schema.String && len(pieces) == 1 {
		d = l.resolve(k.Ref, k.Match, name)
	}
	if d == nil {
		why := "this fragment does not define " + k.Ref.Noun() + " " + schema.QuoteName(name) + " before"
		if _, ok := l.defs[entryKey{k.Ref, name}]; ok {
			why += ", and that of the base is out of reach"
		}
		if m.Value.Kind == schema.Null {
			why = "null is not the name of a " + k.Ref.Noun()
		}
		l.refuse(m.Value.Span, why)
		return
	}
	d.used = true
	if l.current != nil {
		l.put(k, m, schema.String, schema.Quote(l.publish(d)))
	}
}

// publish adds a definition of the fragment to the result, and returns its name
// there. If the base has a definition of that name too, lws keeps both.
func (l *lws) publish(d *fragmentDefinition) string {
	if d.as != "" {
		return d.as
	}
	d.as = d.name
	if base, ok := l.defs[entryKey{d.section, d.name}]; ok {
		if same(base.value, d.value) {
			return d.as
		}
		for ok {
			d.as += "-overlay"
			_, ok = l.defs[entryKey{d.section, d.as}]
		}
	}
	entry := d.entry.Clone()
	if d.section == schema.TrustStores {
		for _, v := range stackOf(&entry) {
			if c := l.resolve(schema.Certs, schema.MatchPrefix, v.Text()); c != nil {
				name := schema.Quote(l.publish(c))
				v.Kind, v.Literal = schema.String, &name
			}
		}
	}
	if keyed(d.section) {
		m := entry.Object.Members[0]
		*m = *setMember(m.Name.Span, d.as, m.Value)
	} else if name := last(entry.Object, "name"); name != nil {
		name.Value = scalar(name.Value.Span, schema.String, schema.Quote(d.as))
	}
	l.editor.define(d.section, d.as, entry)
	return d.as
}

// metadata reads metadata items, which lws adds to those of the base.
func (l *lws) metadata(k *schema.Key, list *schema.Member) {
	if len(list.Value.Elems()) == 0 {
		l.reportf(RuleLWSList, schema.Warning, list.Value.Span, "an empty list changes nothing")
	}
	have, count := l.items(k)
	for _, e := range list.Value.Elems() {
		for _, m := range e.Value.Members() {
			if m.Value.Kind == schema.ObjectKind || m.Value.Kind == schema.ArrayKind {
				continue
			}
			if !l.complete(&m.Value) {
				return
			}
			_, pieces := l.text(&m.Value)
			if l.current == nil {
				continue
			}
			if old := have[m.Key]; old != nil {
				d := l.reportf(RuleLWSList, schema.Error, m.Span(), "lws adds a second item %s: streams that exist have no room for it", schema.QuoteName(m.Key))
				d.Related = []schema.Related{{Span: old.Name.Span, Message: "the first one"}}
			} else {
				l.reportf(RuleLWSList, schema.Warning, m.Span(), "streams that exist have no room for the new item %s", schema.QuoteName(m.Key))
				have[m.Key] = m
			}
			for _, text := range pieces {
				n := *m
				n.Value = scalar(m.Value.Span, schema.String, schema.Quote(text))
				l.appendItem(k, list, &n)
				if count++; count == 256 {
					l.reportf(RuleLWSList, schema.Error, m.Span(), "this is item 256 of %s: lws counts them in 8 bits, from 0 again", schema.QuoteName(l.current.name))
				}
			}
		}
	}
}

// items returns the first metadata item of each name of the current streamtype, and
// the number of items.
func (l *lws) items(k *schema.Key) (have map[string]*schema.Member, count int) {
	have = map[string]*schema.Member{}
	if l.current == nil {
		return have, 0
	}
	for _, list := range l.current.object.Members {
		if list.Key != k.Name {
			continue
		}
		for _, e := range list.Value.Elems() {
			for _, m := range e.Value.Members() {
				count++
				if have[m.Key] == nil {
					have[m.Key] = m
				}
			}
		}
	}
	return have, count
}

// appendItem adds an item to a list of the current streamtype.
func (l *lws) appendItem(k *schema.Key, list, m *schema.Member) {
	home := last(l.current.object, k.Name)
	if home == nil || home.Value.Kind != schema.ArrayKind {
		n := *list
		n.Value = schema.Value{Span: list.Value.Span, Kind: schema.ArrayKind, Array: &schema.Array{Close: "]"}}
		home = add(l.current.object, len(l.current.object.Members), &n)
	}
	insert(home.Value.Array, len(home.Value.Array.Elems), object(m))
	l.change(l.current, k.Name, m.Key, nil, &m.Value, m.Span(), "")
}

// maxStatuses is the maximum number of http_resp_map entries that the parser holds.
const maxStatuses = 16

// statuses reads http_resp_map, which replaces the whole map of the base.
func (l *lws) statuses(k *schema.Key, list *schema.Member) {
	value := schema.Value{Span: list.Value.Span, Kind: schema.ArrayKind, Array: &schema.Array{Close: "]"}}
	for _, e := range list.Value.Elems() {
		for _, m := range e.Value.Members() {
			if m.Value.Kind == schema.ObjectKind || m.Value.Kind == schema.ArrayKind {
				continue
			}
			if !l.complete(&m.Value) {
				return
			}
			if len(value.Array.Elems) == maxStatuses {
				l.refuse(m.Span(), "it has more than "+strconv.Itoa(maxStatuses)+" statuses")
				return
			}
			text, _ := l.text(&m.Value)
			n := *m
			n.Value = scalar(m.Value.Span, schema.Number, schema.Wrap(text, k))
			insert(value.Array, len(value.Array.Elems), object(&n))
		}
	}
	if !l.read(list.Value.Span) || l.current == nil {
		return
	}
	old := last(l.current.object, k.Name)
	switch {
	case len(value.Array.Elems) == 0:
		l.reportf(RuleLWSList, schema.Warning, list.Value.Span, "an empty list changes nothing")
		return
	case old != nil && !same(&old.Value, &value):
		d := l.reportf(RuleLWSList, schema.Warning, list.Name.Span, "this replaces all statuses of the base")
		d.Related = []schema.Related{{Span: old.Name.Span, Message: "the base"}}
	}
	n := *list
	n.Value = value
	l.set(l.current, &n, "")
}
