package overlay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// An editor changes a copy of the base and records the changes.
type editor struct {
	result  *schema.Document
	defs    map[entryKey]definition // of the result, the last of each name
	changes []Change
	diags   []schema.Diagnostic
	limits  map[string]*schema.Limiter // of reportf, by rule
}

func newEditor(base *schema.Document) *editor {
	d := base.Clone()
	return &editor{result: d, defs: index(d), limits: map[string]*schema.Limiter{}}
}

func (e *editor) report(diags []schema.Diagnostic) { e.diags = append(e.diags, diags...) }

// reportf adds a diagnostic, which the caller may change until the next call. It
// keeps schema.MaxFindings of a rule.
func (e *editor) reportf(rule string, severity schema.Severity, at schema.Span, format string, args ...any) *schema.Diagnostic {
	d := schema.Diagnostic{Rule: rule, Severity: severity, Span: at, Message: fmt.Sprintf(format, args...)}
	if e.limits[rule] == nil {
		e.limits[rule] = &schema.Limiter{}
	}
	if instead, keep := e.limits[rule].Add(d); !keep {
		return instead
	}
	e.diags = append(e.diags, d)
	return &e.diags[len(e.diags)-1]
}

// full reports whether reportf drops further diagnostics of a rule.
func (e *editor) full(rule string) bool { return e.limits[rule] != nil && e.limits[rule].Full() }

// diagnostics returns the reported diagnostics, sorted by position.
func (e *editor) diagnostics() []schema.Diagnostic {
	for _, x := range e.limits {
		if rest := x.Rest(); rest != nil {
			e.diags = append(e.diags, *rest)
		}
	}
	return schema.SortDiagnostics(e.diags)
}

// A target is an object whose members a fragment sets.
type target struct {
	section schema.Section
	name    string
	at      schema.Span // of the definition
	object  *schema.Object
}

// change records a change to the target.
func (e *editor) change(t *target, key, item string, before, after *schema.Value, by schema.Span, why string) {
	if t.at.Source == nil {
		t.at = e.result.Root.Span
	}
	e.changes = append(e.changes, Change{
		Section: t.section, Name: t.name, Key: key, Item: item,
		Before: clone(before), After: clone(after), By: by, Definition: t.at, Why: why,
	})
}

// clone returns a copy that later changes do not affect.
func clone(v *schema.Value) *schema.Value {
	if v == nil {
		return nil
	}
	c := v.Clone()
	return &c
}

// A definition is an entry of a section of the result.
type definition struct {
	at    schema.Span // of the name
	value *schema.Value
}

// An entryKey identifies an entry of a section.
type entryKey struct {
	section schema.Section
	name    string
}

// index returns the last definition of each name.
func index(d *schema.Document) map[entryKey]definition {
	defs := map[entryKey]definition{}
	for _, def := range schema.NewPolicy(d).Definitions {
		if !def.Unreadable {
			defs[entryKey{def.Section, def.Name}] = definition{def.NameSpan, def.Value}
		}
	}
	return defs
}

// set sets a member of the target, or removes it if the value is null.
func (e *editor) set(t *target, m *schema.Member, why string) {
	old := last(t.object, m.Key)
	switch {
	case m.Value.Kind == schema.Null && old == nil:
		e.reportf(RuleNoEffect, schema.Warning, m.Span(), "the base has no %s to remove", schema.QuoteName(m.Key))
	case m.Value.Kind == schema.Null:
		before := old.Value
		remove(t.object, m.Key)
		e.change(t, m.Key, "", &before, nil, m.Span(), why)
	case old == nil:
		n := add(t.object, len(t.object.Members), m)
		e.change(t, m.Key, "", nil, &n.Value, m.Span(), why)
	case !same(&old.Value, &m.Value):
		before := put(&old.Value, &m.Value)
		e.change(t, m.Key, "", &before, &old.Value, m.Span(), why)
	}
}

// keyed reports whether the name of a definition is its key.
func keyed(s schema.Section) bool {
	return s == schema.Retry || s == schema.Certs || s == schema.Streams
}

// undefine removes a definition whose name is a key.
func (e *editor) undefine(s schema.Section, by *schema.Member) {
	key := entryKey{s, by.Key}
	def := e.defs[key]
	before := *def.value
	for _, m := range e.result.Root.Members() {
		if m.Key == string(s) && m.Value.Array != nil {
			for _, e := range m.Value.Array.Elems {
				remove(e.Value.Object, by.Key)
			}
			prune(m.Value.Array)
		}
	}
	delete(e.defs, key)
	e.change(&target{section: s, name: by.Key, at: def.at}, "", "", &before, nil, by.Span(), "")
}

// before lists the sections that definitions of a section must precede: lws
// resolves a name to an earlier definition.
var before = map[schema.Section][]schema.Section{
	schema.Retry:       {schema.Streams},
	schema.Certs:       {schema.TrustStores, schema.Streams},
	schema.TrustStores: {schema.Streams},
	schema.Auth:        {schema.Streams},
}

// define adds an entry with a definition to the last section of its kind that
// precedes all references to it, or to a new section. It puts an entry before those
// whose names are prefixes of its name, since lws matches names by prefix.
func (e *editor) define(s schema.Section, name string, entry schema.Value) {
	root := e.result.Root.Object
	end := slices.IndexFunc(root.Members, func(m *schema.Member) bool { return slices.Contains(before[s], schema.Section(m.Key)) })
	if end < 0 {
		end = len(root.Members)
	}
	var home *schema.Member
	for _, m := range root.Members[:end] {
		if m.Key == string(s) && m.Value.Kind == schema.ArrayKind {
			home = m
		}
	}
	if home == nil {
		home = add(root, end, setMember(entry.Span, string(s), schema.Value{Span: entry.Span, Kind: schema.ArrayKind, Array: &schema.Array{Close: "]"}}))
	}
	list := home.Value.Array
	at := len(list.Elems)
	if s != schema.Streams {
		for i, e := range list.Elems {
			if short := entryName(s, &e.Value); short != "" && strings.HasPrefix(name, short) {
				at = i
				break
			}
		}
	}
	n := insert(list, at, entry)
	value := n
	if keyed(s) {
		value = &n.Object.Members[0].Value
	}
	e.defs[entryKey{s, name}] = definition{entry.Span, value}
	e.change(&target{section: s, name: name, at: entry.Span}, "", "", nil, value, entry.Span, "")
}

// entryName returns the name of an entry that holds one definition, or "".
func entryName(s schema.Section, v *schema.Value) string {
	if keyed(s) {
		if m := v.Members(); len(m) == 1 {
			return m[0].Key
		}
		return ""
	}
	if m := last(v.Object, "name"); m != nil {
		return m.Value.Text()
	}
	return ""
}

// protocol returns the protocol of a streamtype.
func protocol(o *schema.Object) string {
	if p := last(o, "protocol"); p != nil {
		return p.Value.Text()
	}
	return "h1"
}
