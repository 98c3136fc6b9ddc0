package main

import (
	"slices"

	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// only returns a policy with fragments applied, without the streamtypes that a
// streamtype does not need. It returns nil if the text has syntax errors, or if the
// policy has no such streamtype.
func only(base *schema.Document, fragments []*schema.Document, name string) *schema.Document {
	d := base
	if len(fragments) > 0 {
		d = overlay.Apply(base, fragments, overlay.Options{}).Document
	}
	if d == nil || schema.HasErrors(d.Syntax) {
		return nil
	}
	p := schema.NewPolicy(d)
	if len(p.Lookup(schema.Streams, name)) == 0 {
		return nil
	}
	needs := map[string]bool{name: true}
	for more := true; more; {
		more = false
		for _, r := range p.References {
			// Any streamtype may use an auth scheme, which names one that gets its tokens.
			if r.Key.Ref == schema.Streams && !needs[r.Name] && (r.From.Section != schema.Streams || needs[r.From.Name]) {
				needs[r.Name], more = true, true
			}
		}
	}
	d = d.Clone()
	for _, m := range d.Root.Members() {
		if m.Key != string(schema.Streams) {
			continue
		}
		for _, e := range m.Value.Elems() {
			if e.Value.Object != nil {
				e.Value.Object.Members = slices.DeleteFunc(e.Value.Object.Members, func(m *schema.Member) bool { return !needs[m.Key] })
			}
		}
	}
	return d
}
