package lsp

import (
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// metadata is the section of metadata names, which the key metadata of a streamtype
// declares and its strings use as ${name}. A policy does not have it as a section.
const metadata schema.Section = "metadata"

// metadataAt returns the metadata name at an offset, and its span there: without the
// braces, or with the quotation marks of the declaration.
func (t *tree) metadataAt(p place, offset int) (name, schema.Span, bool) {
	if p.def == nil || p.def.Section != schema.Streams {
		return name{}, schema.Span{}, false
	}
	if n := len(p.path); p.onName && n >= 2 && p.path[n-2].Key == "metadata" && p.setting != nil && p.setting.Member == p.path[n-2] {
		return name{metadata, p.member.Key, p.def.Name}, p.member.Name.Span, true
	}
	if p.value != nil && p.value.Kind == schema.String {
		for _, at := range variables(p.value.Span) {
			if holds(at, offset) {
				return name{metadata, at.Text(), p.def.Name}, at, true
			}
		}
	}
	return name{}, schema.Span{}, false
}

// variables returns the names in ${} in a string, except those with escapes.
func variables(s schema.Span) (all []schema.Span) {
	text := s.Text()
	for at := 0; ; {
		i := strings.Index(text[at:], "${")
		if i < 0 {
			return all
		}
		start := at + i + len("${")
		n := strings.IndexAny(text[start:], "}\\")
		if n < 0 {
			return all
		}
		if text[start+n] == '}' && n > 0 {
			all = append(all, schema.Span{Source: s.Source, Start: s.Start + start, End: s.Start + start + n})
		}
		at = start + n
	}
}

// metadataUses returns the uses of a metadata name in a streamtype.
func (r *relative) metadataUses(n name) (all []use) {
	for _, d := range r.tree.policy.Lookup(schema.Streams, n.of) {
		for _, set := range d.Settings {
			if set.Member.Key == "metadata" {
				for _, e := range set.Member.Value.Elems() {
					for _, m := range e.Value.Members() {
						if m.Key == n.text {
							all = append(all, use{r, m.Name.Span, true})
						}
					}
				}
			}
			each(&set.Member.Value, func(v *schema.Value) {
				for _, at := range variables(v.Span) {
					if at.Text() == n.text {
						all = append(all, use{r, at, false})
					}
				}
			})
		}
	}
	return all
}

// each calls f for each string in a value.
func each(v *schema.Value, f func(*schema.Value)) {
	switch v.Kind {
	case schema.String:
		f(v)
	case schema.ObjectKind:
		for _, m := range v.Members() {
			each(&m.Value, f)
		}
	case schema.ArrayKind:
		for _, e := range v.Elems() {
			each(&e.Value, f)
		}
	}
}

// declares reports whether a streamtype declares a metadata name.
func (r *relative) declares(n name) bool {
	for _, u := range r.metadataUses(n) {
		if u.defines {
			return true
		}
	}
	return false
}
