package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var nameNotFirst = &lint.Rule{
	Name:       "name-not-first",
	ParserOnly: true,
	Severity:   schema.Error,
	Fixes:      lint.SafeFix,
	Summary:    "a trust store or metric policy does not begin with its name",
	Why:        `The name creates the entry. Keys before it belong to the previous entry.`,
	LWS: `lws adds the certificates to the previous trust store, and the values to the previous
metric policy. Without a previous one it crashes (4.1.6 to 5.0.0).`,
	Bad: `{ "certs": [ { "root": "` + exampleRoot + `" } ],
  "trust_stores": [ { "stack": [ "root" ], "name": "own" } ] }`,
	Good: `{ "certs": [ { "root": "` + exampleRoot + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ] }`,
	Firm: true,
	Check: func(p *lint.Pass) {
		for _, m := range p.Policy.Document.Root.Members() {
			section := schema.Section(m.Key)
			if section != schema.TrustStores && section != schema.Metrics {
				continue
			}
			for _, e := range m.Value.Elems() {
				members := e.Value.Members()
				first := 0 // of the keys that lws reads
				for first < len(members) && schema.LookupKey(section, members[first].Key) == nil {
					first++
				}
				name := first
				for name < len(members) && members[name].Key != "name" {
					name++
				}
				if name >= len(members) || name == first || members[name].Value.Kind != schema.String {
					continue // a missing name is a missing-key
				}
				n := members[name]
				d := p.Reportf(members[first].Name.Span, "%s precedes the name: lws adds it to the %s before %s, or crashes if there is none",
					members[first].Key, section.Noun(), schema.QuoteName(n.Value.Text()))
				at := members[first].Name.Span
				at.End = at.Start
				d.Fixes = []schema.Fix{{
					Message: "move the name to the start",
					Edits: append([]schema.Edit{{Span: at, NewText: n.Span().Text() + ", "}},
						schema.RemoveMember(members, name)...),
					Safe: true,
				}}
			}
		}
	},
}
