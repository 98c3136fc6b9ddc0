package overlay

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// An author applies fragments as their authors mean them.
type author struct {
	*editor
	options Options
	names   []string // of the streamtypes, read when one is not found
}

// apply applies one fragment, unless it has errors.
func (a *author) apply(f *schema.Document) {
	found := CheckFragment(f)
	a.report(found)
	if schema.HasErrors(found) {
		return
	}
	view := schema.NewPolicy(f)
	for _, m := range f.Root.Members() {
		switch section := schema.Section(m.Key); {
		case m.Key == "$schema":
		case m.Key == "x-sspolicy":
			if streams := last(m.Value.Object, "streams"); streams != nil && len(streams.Value.Members()) > 0 {
				a.reportf(RuleNoEffect, schema.Warning, streams.Name.Span, "the settings of streamtypes in x-sspolicy are not applied: they belong in the base policy")
			}
		case section.Noun() == "":
			a.set(&target{object: a.result.Root.Object}, m, "")
		case section == schema.Streams:
			for _, e := range m.Value.Elems() {
				for _, stream := range e.Value.Members() {
					a.stream(stream)
				}
			}
		default:
			for _, e := range m.Value.Elems() {
				a.entry(section, e, view)
			}
		}
	}
}

// CheckFragment returns the findings about a fragment alone: its syntax, keys,
// types and ranges.
func CheckFragment(f *schema.Document) []schema.Diagnostic {
	found := slices.Clone(f.Syntax)
	if schema.HasErrors(found) {
		return found
	}
	if other := f.NotPolicy(); other != nil {
		return append(found, *other)
	}
	return append(found, schema.ValidateFragment(f)...)
}

// stream applies a streamtype of a fragment.
func (a *author) stream(m *schema.Member) {
	base, ok := a.defs[entryKey{schema.Streams, m.Key}]
	switch {
	case !ok && m.Value.Kind == schema.Null:
		a.reportf(RuleNoEffect, schema.Warning, m.Span(), "the base policy has no streamtype %s to remove", schema.QuoteName(m.Key))
	case !ok && a.options.AllowNew:
		a.define(schema.Streams, m.Key, withoutNulls(m))
	case !ok:
		d := a.reportf(RuleUnknownStreamtype, schema.Error, m.Name.Span, "the base policy has no streamtype %s", schema.QuoteName(m.Key))
		if a.full(RuleUnknownStreamtype) {
			return // the rest of the message would not help
		}
		if better := schema.Nearest(m.Key, a.streamtypes()); better != "" {
			d.Message += ": did you mean " + schema.QuoteName(better) + "?"
		}
	case m.Value.Kind == schema.Null:
		a.undefine(schema.Streams, m)
	case base.value.Kind != schema.ObjectKind:
		d := a.reportf(schema.RuleWrongType, schema.Error, base.value.Span, "streamtype %s is an object, not %s", schema.QuoteName(m.Key), base.value.Kind)
		d.Related = []schema.Related{{Span: m.Name.Span, Message: "changed here"}}
	default:
		a.settings(&target{schema.Streams, m.Key, base.at, base.value.Object}, m)
	}
}

// streamtypes returns the names of the streamtypes, for suggestions.
func (a *author) streamtypes() []string {
	if a.names == nil {
		for key := range a.defs {
			if key.section == schema.Streams {
				a.names = append(a.names, key.name)
			}
		}
		slices.Sort(a.names)
	}
	return a.names
}

// settings applies the settings of a fragment's streamtype.
func (a *author) settings(t *target, m *schema.Member) {
	before := protocol(t.object)
	endpoint := a.endpoint(t, m)
	for _, setting := range m.Value.Members() {
		switch {
		case setting == endpoint:
		case setting.Value.Kind == schema.ArrayKind && byName(setting.Key):
			a.items(t, setting)
		default:
			a.set(t, setting, "")
		}
	}
	if now := protocol(t.object); now != before {
		a.dropUnused(t, now, m)
	}
}

// byName reports whether the entries in the list of a key are replaced one by one.
func byName(key string) bool { return key == "metadata" || key == "http_resp_map" }

// dropUnused removes the settings of the base that the new protocol does not use
// and that lws stores in the place of the new protocol's own.
func (a *author) dropUnused(t *target, protocol string, m *schema.Member) {
	by := last(m.Value.Object, "protocol").Span()
	var dropped []string
	for _, s := range slices.Clone(t.object.Members) {
		k := schema.LookupKey(schema.Streams, s.Key)
		if k == nil || slices.Contains(dropped, s.Key) || !strings.HasPrefix(k.Member, "u.") || k.Serves(protocol) || last(m.Value.Object, s.Key) != nil {
			continue
		}
		remove(t.object, s.Key)
		a.change(t, s.Key, "", &s.Value, nil, by, "the protocol changes to "+protocol)
		dropped = append(dropped, s.Key)
	}
	if dropped != nil {
		a.reportf(RuleDroppedSettings, schema.Info, by, "the new protocol of streamtype %s drops %s of the base, which %s does not use",
			schema.QuoteName(t.name), strings.Join(dropped, ", "), protocol)
	}
}

// items applies a list whose entries have names. If a name repeats, the last entry
// counts.
func (a *author) items(t *target, list *schema.Member) {
	if len(list.Value.Elems()) == 0 {
		a.reportf(RuleNoEffect, schema.Warning, list.Value.Span, "an empty list changes nothing: entries are replaced by name, and \"%s\": null removes the list", list.Key)
	}
	entries := map[string]*schema.Member{}
	for _, e := range list.Value.Elems() {
		for _, m := range e.Value.Members() {
			entries[m.Key] = m
		}
	}
	for _, e := range list.Value.Elems() {
		for _, m := range e.Value.Members() {
			if entries[m.Key] == m {
				a.item(t, list, m)
			}
		}
	}
}

// item applies an entry of a list.
func (a *author) item(t *target, list, m *schema.Member) {
	var old *schema.Member
	var home *schema.Member // the last list of the base
	for _, l := range t.object.Members {
		if l.Key != list.Key {
			continue
		}
		home = l
		for _, e := range l.Value.Elems() {
			if f := last(e.Value.Object, m.Key); f != nil {
				old = f
			}
		}
	}
	switch {
	case old != nil && m.Value.Kind == schema.Null:
		before := old.Value
		for _, l := range t.object.Members {
			if l.Key == list.Key && l.Value.Array != nil {
				for _, e := range l.Value.Array.Elems {
					remove(e.Value.Object, m.Key)
				}
				prune(l.Value.Array)
			}
		}
		a.change(t, list.Key, m.Key, &before, nil, m.Span(), "")
	case m.Value.Kind == schema.Null:
		a.reportf(RuleNoEffect, schema.Warning, m.Span(), "the base has no %s in %s to remove", schema.QuoteName(m.Key), list.Key)
	case old != nil:
		if !same(&old.Value, &m.Value) {
			before := put(&old.Value, &m.Value)
			a.change(t, list.Key, m.Key, &before, &old.Value, m.Span(), "")
		}
	case home == nil:
		value := schema.Value{Span: m.Span(), Kind: schema.ArrayKind, Array: &schema.Array{Close: "]"}}
		insert(value.Array, 0, object(m))
		n := *list
		n.Value = value
		add(t.object, len(t.object.Members), &n)
		a.change(t, list.Key, m.Key, nil, &m.Value, m.Span(), "")
	case home.Value.Kind != schema.ArrayKind:
		d := a.reportf(schema.RuleWrongType, schema.Error, home.Value.Span, "%s must be an array, not %s", list.Key, home.Value.Kind)
		d.Related = []schema.Related{{Span: m.Span(), Message: "changed here"}}
	default:
		insert(home.Value.Array, len(home.Value.Array.Elems), object(m))
		a.change(t, list.Key, m.Key, nil, &m.Value, m.Span(), "")
	}
}

// entry applies an entry of a section other than streamtypes: an object of
// definitions by name, or one with a member "name".
func (a *author) entry(s schema.Section, e *schema.Element, fragment *schema.Policy) {
	if !keyed(s) {
		if name := last(e.Value.Object, "name"); name != nil {
			a.definition(s, name.Value.Text(), name.Value.Span, &e.Value, nil, fragment)
		}
		return
	}
	for _, m := range e.Value.Members() {
		a.definition(s, m.Key, m.Name.Span, &m.Value, m, fragment)
	}
}

// definition applies a definition; m is its member if the name is its key. If a
// name repeats, the last definition counts.
func (a *author) definition(s schema.Section, name string, at schema.Span, v *schema.Value, m *schema.Member, fragment *schema.Policy) {
	if all := fragment.Lookup(s, name); len(all) == 0 || all[len(all)-1].NameSpan != at {
		return
	}
	entry, by := *v, v.Span
	if m != nil {
		entry, by = object(m), m.Span()
	}
	old, ok := a.defs[entryKey{s, name}]
	switch {
	case m != nil && v.Kind == schema.Null && !ok:
		a.reportf(RuleNoEffect, schema.Warning, by, "the base policy has no %s %s to remove", s.Noun(), schema.QuoteName(name))
		return
	case m != nil && v.Kind == schema.Null:
		a.undefine(s, m)
		a.reportf(RuleBeyondLWS, schema.Info, at, "lws's own overlay would not remove this %s", s.Noun())
		return
	case !ok:
		a.define(s, name, entry)
	case !same(old.value, v):
		before := put(old.value, v)
		a.change(&target{section: s, name: name, at: old.at}, "", "", &before, old.value, by, "")
	default:
		return
	}
	a.reportf(RuleBeyondLWS, schema.Info, at, "lws's own overlay would leave the streamtypes of the base without this %s", s.Noun())
}
