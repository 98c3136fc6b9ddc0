package policytest

import (
	"slices"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// compileFor compiles a policy as a version of lws reads it: without unknown keys and
// values, with only the first wait of a backoff scheme where lws keeps only that, and with
// unescaped metadata. The policy must have no errors.
func compileFor(d *schema.Document, v schema.Version) *policy.Policy {
	d = d.Clone()
	strip(&d.Root, schema.Top, v)
	for _, section := range d.Root.Members() {
		for _, e := range section.Value.Elems() {
			s := schema.Section(section.Key)
			if strip(&e.Value, s, v); s == schema.Retry || s == schema.Streams {
				for _, m := range e.Value.Members() {
					strip(&m.Value, s, v)
				}
			}
		}
	}
	p, _ := codegen.Compile(schema.NewPolicy(d))
	if p == nil {
		return nil
	}
	for _, st := range p.StreamTypes {
		if st.Retry != nil && len(st.Retry.Backoff) > 1 && !v.KeepsBackoff() {
			st.Retry.Backoff = st.Retry.Backoff[:1]
		}
		for i := range st.Metadata {
			st.Metadata[i].Raw = true
		}
	}
	return p
}

// strip removes the members of an object that a version ignores.
func strip(v *schema.Value, s schema.Section, version schema.Version) {
	if v.Object == nil {
		return
	}
	v.Object.Members = slices.DeleteFunc(v.Object.Members, func(m *schema.Member) bool {
		k := schema.LookupKey(s, m.Key)
		return k != nil && (!k.In(version) || m.Value.Kind == schema.String && !k.ValueIn(m.Value.Text(), version))
	})
}

// trustFor returns the name of the trust store that lws uses for a streamtype.
func trustFor(p *schema.Policy, stream string) string {
	defs := p.Resolve().Definition
	name := ""
	for _, r := range p.References {
		if r.Key.Name == "tls_trust_store" && r.From.Name == stream {
			name = r.Name
			if d := defs[r]; d != nil {
				name = d.Name
			}
		}
	}
	return name
}
