package lsp

import (
	"github.com/secure-streams/sspolicy/schema"
)

// A place describes an offset of a document. Members that do not apply are nil.
type place struct {
	member  *schema.Member     // innermost member that contains the offset
	onName  bool               // the offset is in the key of member
	value   *schema.Value      // the scalar at the offset
	def     *schema.Definition // around the offset
	onDef   bool               // the offset is in the name of def
	setting *schema.Setting    // of def, or of the policy
	ref     *schema.Reference
	path    []*schema.Member // from the top to member
}

// holds reports whether an offset is inside a span or at its end.
func holds(s schema.Span, offset int) bool { return s.Start <= offset && offset <= s.End }

// at returns the place of an offset.
func (t *tree) at(offset int) place {
	p := place{value: &t.doc.Root}
	for p.value != nil {
		v := p.value
		switch v.Kind {
		case schema.ObjectKind:
			p.value = nil
			for _, m := range v.Object.Members {
				if holds(m.Name.Span, offset) {
					p.member, p.onName = m, true
				} else if holds(m.Value.Span, offset) {
					p.member, p.value = m, &m.Value
				} else {
					continue
				}
				p.path = append(p.path, m)
				break
			}
			continue
		case schema.ArrayKind:
			p.value = nil
			for _, e := range v.Array.Elems {
				if holds(e.Value.Span, offset) {
					p.value = &e.Value
					break
				}
			}
			continue
		}
		if !holds(v.Span, offset) {
			p.value = nil
		}
		break
	}
	for _, d := range t.policy.Definitions {
		if holds(d.NameSpan, offset) {
			p.def, p.onDef = d, true
			break
		}
		if holds(d.Value.Span, offset) {
			p.def = d
			break
		}
	}
	settings := t.policy.Settings
	if p.def != nil {
		settings = p.def.Settings
	}
	for _, s := range settings {
		if holds(s.Member.Span(), offset) {
			p.setting = s
		}
	}
	for _, r := range t.policy.References {
		if holds(r.Span, offset) {
			p.ref = r
			break
		}
	}
	return p
}

// section returns the section whose key is at the place, if any.
func (p *place) section() (schema.Section, bool) {
	if p.onName && len(p.path) == 1 {
		k := schema.LookupKey(schema.Top, p.member.Key)
		return schema.Section(p.member.Key), k != nil && schema.Section(p.member.Key).Noun() != ""
	}
	return "", false
}
