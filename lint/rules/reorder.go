package rules

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// sectionOrder is an order of sections in which every definition precedes its uses.
var sectionOrder = []schema.Section{
	schema.Retry, schema.Certs, schema.TrustStores, schema.Auth, schema.Metrics, schema.Streams,
}

// reorder returns the edits that bring the sections of a policy into sectionOrder. Other
// members at the top keep their places. A section moves together with the comments on their
// own lines above it. If a comment follows a section on its last line, there are no edits,
// since the comment would end up after another section.
func reorder(d *schema.Document) []schema.Edit {
	var places []*schema.Member // places of the sections
	for _, m := range d.Root.Members() {
		if slices.Contains(sectionOrder, schema.Section(m.Key)) {
			if m.Name.Span.Source != d.Source || m.Value.Span.Source != d.Source {
				return nil // the policy is made of several texts
			}
			places = append(places, m)
		}
	}
	sorted := slices.Clone(places)
	slices.SortStableFunc(sorted, func(a, b *schema.Member) int {
		return slices.Index(sectionOrder, schema.Section(a.Key)) - slices.Index(sectionOrder, schema.Section(b.Key))
	})
	members := d.Root.Members()
	for i, m := range members {
		behind := m.Value.After
		if i+1 < len(members) {
			behind += members[i+1].Name.Before
		} else {
			behind += d.Root.Object.Tail
		}
		if line, _, _ := strings.Cut(behind, "\n"); strings.Contains(line, "#") {
			return nil
		}
	}
	var edits []schema.Edit
	for i, m := range sorted {
		if m != places[i] {
			edits = append(edits, schema.Edit{Span: withComments(places[i]), NewText: withComments(m).Text()})
		}
	}
	return edits
}

// withComments returns the range of a member, including the comments above it.
func withComments(m *schema.Member) schema.Span {
	s := m.Span()
	if line := strings.IndexByte(m.Name.Before, '\n'); line >= 0 {
		if comment := strings.IndexByte(m.Name.Before[line:], '#'); comment >= 0 {
			s.Start -= len(m.Name.Before) - line - comment
		}
	}
	return s
}
