// Package overlay lays fragments of a policy over it.
//
// A fragment is a policy that holds nothing but streamtypes of the policy below
// it, with the settings that are to be different. lws has the same idea for
// testing error paths (lws_ss_policy_overlay in lws 4.1 to 5.0); here the
// result is what the author of the fragment would expect, where lws finds
// streamtypes by the start of their names, can't clear a flag, and can't use
// what the policy below defines.
package overlay

import (
	"fmt"

	"github.com/secure-streams/sspolicy/schema"
)

// Rule is the rule that the diagnostics of this package name.
const Rule = "overlay"

// Apply lays fragments over a document, one after the other, and returns the
// result as a new document. Its values know the source that they came from, so
// that what is later found wrong in them is shown there.
//
// A setting of a fragment replaces that of the streamtype below, or is added
// to it; null removes it. Metadata items are replaced and added one by one, by
// their names. Everything else in the document below stays as it is, comments
// and white space included.
//
// The diagnostics are what is wrong with the fragments. If there are errors
// among them there is no result.
func Apply(base *schema.Document, fragments ...*schema.Document) (*schema.Document, []schema.Diagnostic) {
	l := &layer{result: base.Clone()}
	for _, f := range fragments {
		l.found = append(l.found, f.Syntax...)
		if schema.HasErrors(f.Syntax) {
			continue
		}
		l.streams = lastStreams(l.result)
		l.fragment(f)
	}
	l.found = schema.SortDiagnostics(l.found)
	if schema.HasErrors(l.found) {
		return nil, l.found
	}
	return l.result, l.found
}

type layer struct {
	result  *schema.Document
	streams map[string]*schema.Value // the streamtypes of the result that are in force
	found   []schema.Diagnostic
}

func lastStreams(d *schema.Document) map[string]*schema.Value {
	streams := map[string]*schema.Value{}
	for _, def := range schema.NewPolicy(d).Section(schema.Streams) {
		streams[def.Name] = def.Value
	}
	return streams
}

func (l *layer) errorf(at schema.Span, format string, args ...any) *schema.Diagnostic {
	l.found = append(l.found, schema.Diagnostic{
		Rule: Rule, Severity: schema.Error, Span: at, Message: fmt.Sprintf(format, args...),
	})
	return &l.found[len(l.found)-1]
}

func (l *layer) fragment(f *schema.Document) {
	for _, m := range f.Root.Members() {
		switch {
		case m.Key != string(schema.Streams):
			l.errorf(m.Name.Span, "an overlay changes streamtypes only, in \"s\": define %s in the policy below it", schema.QuoteName(m.Key))
		case m.Value.Kind != schema.ArrayKind:
			l.errorf(m.Value.Span, "\"s\" is an array, not %s", m.Value.Kind)
		default:
			for _, e := range m.Value.Elems() {
				if e.Value.Kind != schema.ObjectKind {
					l.errorf(e.Value.Span, "an entry of \"s\" is an object, not %s", e.Value.Kind)
				}
				for _, stream := range e.Value.Members() {
					l.stream(stream)
				}
			}
		}
	}
}

func (l *layer) stream(m *schema.Member) {
	below, ok := l.streams[m.Key]
	switch {
	case !ok:
		d := l.errorf(m.Name.Span, "the policy below has no streamtype %s", schema.QuoteName(m.Key))
		names := make([]string, 0, len(l.streams))
		for _, def := range schema.NewPolicy(l.result).Section(schema.Streams) {
			names = append(names, def.Name)
		}
		if better := schema.Nearest(m.Key, names); better != "" {
			d.Message += ": did you mean " + schema.QuoteName(better) + "?"
		}
	case m.Value.Kind != schema.ObjectKind:
		l.errorf(m.Value.Span, "streamtype %s is an object, not %s", schema.QuoteName(m.Key), m.Value.Kind)
	case below.Kind != schema.ObjectKind:
		l.errorf(m.Name.Span, "streamtype %s of the policy below is %s, not an object", schema.QuoteName(m.Key), below.Kind)
	default:
		seen := map[string]bool{}
		for _, setting := range m.Value.Members() {
			if seen[setting.Key] {
				l.errorf(setting.Name.Span, "%s stands twice in this fragment", schema.QuoteName(setting.Key))
				continue
			}
			seen[setting.Key] = true
			set(below.Object, setting)
		}
	}
}

// set lays a member over an object.
func set(o *schema.Object, m *schema.Member) {
	if m.Value.Kind == schema.Null {
		remove(o, m.Key)
		return
	}
	below := last(o, m.Key)
	switch {
	case below == nil:
		add(o, m)
	case m.Key == "metadata" && m.Value.Kind == schema.ArrayKind && below.Value.Kind == schema.ArrayKind:
		items(below.Value.Array, m.Value.Array)
	default:
		put(&below.Value, &m.Value)
	}
}

// last returns the member of an object that counts for a key, or nil.
func last(o *schema.Object, key string) *schema.Member {
	if o == nil {
		return nil
	}
	for i := len(o.Members) - 1; i >= 0; i-- {
		if o.Members[i].Key == key {
			return o.Members[i]
		}
	}
	return nil
}

// put replaces a value, but not the space around it.
func put(v, by *schema.Value) {
	n := by.Clone()
	n.Before, n.After = v.Before, v.After
	*v = n
}

// items lays metadata items over a list of them.
func items(below, above *schema.Array) {
	for _, e := range above.Elems {
		for _, m := range e.Value.Members() {
			var old *schema.Member
			for _, b := range below.Elems {
				if f := last(b.Value.Object, m.Key); f != nil {
					old = f
				}
			}
			switch {
			case old != nil && m.Value.Kind == schema.Null:
				for _, b := range below.Elems {
					remove(b.Value.Object, m.Key)
				}
				prune(below)
			case old != nil:
				put(&old.Value, &m.Value)
			case m.Value.Kind != schema.Null:
				n := &schema.Member{Name: m.Name, Key: m.Key, Colon: m.Colon, Value: m.Value.Clone()}
				n.Name.Before, n.Value.After = "", ""
				item := schema.Value{Span: m.Span(), Kind: schema.ObjectKind, Object: &schema.Object{Members: []*schema.Member{n}, Close: "}"}}
				appendElem(below, item)
			}
		}
	}
}
