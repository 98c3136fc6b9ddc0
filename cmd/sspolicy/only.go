package main

import (
	"slices"

	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// only returns a policy with fragments applied, reduced to the named streamtypes
// and what they need: streamtypes that share their requests or get their tokens,
// and the definitions that all of these refer to. It returns nil if the text has
// syntax errors. If the policy lacks one of the names, it returns the names of all
// streamtypes and the missing one.
func only(base *schema.Document, fragments []*schema.Document, names ...string) (part *schema.Document, all []string, missing string) {
	d := base
	if len(fragments) > 0 {
		d = overlay.Apply(base, fragments, overlay.Options{}).Document
	}
	if d == nil || schema.HasErrors(d.Syntax) {
		return nil, nil, ""
	}
	d = d.Clone()
	p := schema.NewPolicy(d)
	for _, def := range p.Section(schema.Streams) {
		all = append(all, def.Name)
	}
	needs := map[*schema.Definition]bool{}
	// Keep all definitions with a name, since lws may take any of them.
	need := func(s schema.Section, name string) (added bool) {
		for _, def := range p.Lookup(s, name) {
			added = added || !needs[def]
			needs[def] = true
		}
		return added
	}
	for _, name := range names {
		if len(p.Lookup(schema.Streams, name)) == 0 {
			return nil, all, name
		}
		need(schema.Streams, name)
	}
	for more := true; more; {
		more = false
		for _, r := range p.References {
			if needs[r.From] && need(r.Key.Ref, r.Name) {
				more = true
			}
		}
	}
	drop := map[*schema.Value]bool{}
	for _, def := range p.Definitions {
		if !needs[def] && def.Section != schema.Metrics {
			drop[def.Value] = true
		}
	}
	for _, section := range d.Root.Members() {
		array := section.Value.Array
		if array == nil {
			continue
		}
		for _, e := range array.Elems {
			if o := e.Value.Object; o != nil {
				o.Members = slices.DeleteFunc(o.Members, func(m *schema.Member) bool { return drop[&m.Value] })
			}
		}
		array.Elems = slices.DeleteFunc(array.Elems, func(e *schema.Element) bool { return drop[&e.Value] })
	}
	return d, all, ""
}
