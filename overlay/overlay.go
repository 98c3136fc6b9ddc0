// Package overlay applies fragments to a policy.
//
// A fragment is a policy that holds only streamtypes of the base policy, with the
// settings to change. lws has overlays for testing error paths
// (lws_ss_policy_overlay in lws 4.1 to 5.0), with limits that this package does not
// have: lws matches streamtypes by prefix, cannot clear a flag, and cannot refer to
// definitions of the base policy.
package overlay

import (
	"fmt"

	"github.com/secure-streams/sspolicy/schema"
)

// Rule is the rule of this package's diagnostics.
const Rule = "overlay"

// Apply applies fragments to a document, in order, and returns a new document. Each
// value keeps the source that it came from, for later diagnostics.
//
// A setting of a fragment replaces the setting of the base, or is added to it; null
// removes it. Metadata items are replaced and added one by one, by name. Everything
// else in the base stays as it is, comments and white space included.
//
// The diagnostics are the faults of the fragments. If there are errors among them,
// the document is nil.
func Apply(base *schema.Document, fragments ...*schema.Document) (*schema.Document, []schema.Diagnostic) {
	l := &layer{result: base.Clone()}
	for _, f := range fragments {
		l.diags = append(l.diags, f.Syntax...)
		if schema.HasErrors(f.Syntax) {
			continue
		}
		l.streams = lastStreams(l.result)
		l.fragment(f)
	}
	l.diags = schema.SortDiagnostics(l.diags)
	if schema.HasErrors(l.diags) {
		return nil, l.diags
	}
	return l.result, l.diags
}

type layer struct {
	result  *schema.Document
	streams map[string]*schema.Value // the effective streamtypes of the result
	diags   []schema.Diagnostic
}

func lastStreams(d *schema.Document) map[string]*schema.Value {
	streams := map[string]*schema.Value{}
	for _, def := range schema.NewPolicy(d).Section(schema.Streams) {
		streams[def.Name] = def.Value
	}
	return streams
}

func (l *layer) errorf(at schema.Span, format string, args ...any) *schema.Diagnostic {
	l.diags = append(l.diags, schema.Diagnostic{
		Rule: Rule, Severity: schema.Error, Span: at, Message: fmt.Sprintf(format, args...),
	})
	return &l.diags[len(l.diags)-1]
}

func (l *layer) fragment(f *schema.Document) {
	for _, m := range f.Root.Members() {
		switch {
		case m.Key != string(schema.Streams):
			l.errorf(m.Name.Span, "an overlay changes only streamtypes, in \"s\": define %s in the base policy", schema.QuoteName(m.Key))
		case m.Value.Kind != schema.ArrayKind:
			l.errorf(m.Value.Span, "\"s\" must be an array, not %s", m.Value.Kind)
		default:
			for _, e := range m.Value.Elems() {
				if e.Value.Kind != schema.ObjectKind {
					l.errorf(e.Value.Span, "an entry of \"s\" must be an object, not %s", e.Value.Kind)
				}
				for _, stream := range e.Value.Members() {
					l.stream(stream)
				}
			}
		}
	}
}

func (l *layer) stream(m *schema.Member) {
	base, ok := l.streams[m.Key]
	switch {
	case !ok:
		d := l.errorf(m.Name.Span, "the base policy has no streamtype %s", schema.QuoteName(m.Key))
		names := make([]string, 0, len(l.streams))
		for _, def := range schema.NewPolicy(l.result).Section(schema.Streams) {
			names = append(names, def.Name)
		}
		if better := schema.Nearest(m.Key, names); better != "" {
			d.Message += ": did you mean " + schema.QuoteName(better) + "?"
		}
	case m.Value.Kind != schema.ObjectKind:
		l.errorf(m.Value.Span, "streamtype %s must be an object, not %s", schema.QuoteName(m.Key), m.Value.Kind)
	case base.Kind != schema.ObjectKind:
		l.errorf(m.Name.Span, "streamtype %s of the base policy must be an object, not %s", schema.QuoteName(m.Key), base.Kind)
	default:
		seen := map[string]bool{}
		for _, setting := range m.Value.Members() {
			if seen[setting.Key] {
				l.errorf(setting.Name.Span, "this fragment sets %s twice", schema.QuoteName(setting.Key))
				continue
			}
			seen[setting.Key] = true
			set(base.Object, setting)
		}
	}
}

// set applies a member of a fragment to an object.
func set(o *schema.Object, m *schema.Member) {
	if m.Value.Kind == schema.Null {
		remove(o, m.Key)
		return
	}
	old := last(o, m.Key)
	switch {
	case old == nil:
		add(o, m)
	case m.Key == "metadata" && m.Value.Kind == schema.ArrayKind && old.Value.Kind == schema.ArrayKind:
		items(old.Value.Array, m.Value.Array)
	default:
		put(&old.Value, &m.Value)
	}
}

// last returns the last member of an object with this key, the one that counts, or
// nil.
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

// put replaces a value and keeps the space around it.
func put(v, by *schema.Value) {
	n := by.Clone()
	n.Before, n.After = v.Before, v.After
	*v = n
}

// items applies the metadata items of a fragment to a list.
func items(list, fragment *schema.Array) {
	for _, e := range fragment.Elems {
		for _, m := range e.Value.Members() {
			var old *schema.Member
			for _, item := range list.Elems {
				if f := last(item.Value.Object, m.Key); f != nil {
					old = f
				}
			}
			switch {
			case old != nil && m.Value.Kind == schema.Null:
				for _, item := range list.Elems {
					remove(item.Value.Object, m.Key)
				}
				prune(list)
			case old != nil:
				put(&old.Value, &m.Value)
			case m.Value.Kind != schema.Null:
				n := &schema.Member{Name: m.Name, Key: m.Key, Colon: m.Colon, Value: m.Value.Clone()}
				n.Name.Before, n.Value.After = "", ""
				item := schema.Value{Span: m.Span(), Kind: schema.ObjectKind, Object: &schema.Object{Members: []*schema.Member{n}, Close: "}"}}
				appendElem(list, item)
			}
		}
	}
}
