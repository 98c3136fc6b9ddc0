package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var joinedCerts = &lint.Rule{
	Name:     "joined-certs",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "there are several certificates in one object",
	Why:      `Each certificate needs an object of its own: [ {"one": "..."}, {"two": "..."} ].`,
	LWS: `lws stores a certificate at the end of its object. Of several only the last is
stored; the others are empty, and a trust store goes without them, with no word
about it (4.1.6 to 5.0.0).`,
	Bad:  `{ "certs": [ { "one": "` + exampleRoot + `", "two": "` + exampleRoot2 + `" } ] }`,
	Good: `{ "certs": [ { "one": "` + exampleRoot + `" }, { "two": "` + exampleRoot2 + `" } ] }`,
	Check: func(p *lint.Pass) {
		for _, m := range p.Policy.Document.Root.Members() {
			if schema.Section(m.Key) != schema.Certs {
				continue
			}
			for _, e := range m.Value.Elems() {
				members := e.Value.Members()
				for i, lost := range members {
					if i == len(members)-1 {
						break
					}
					d := p.Reportf(lost.Name.Span, "certificate %s is lost: of several in one object lws keeps the last, so give it its own",
						schema.QuoteName(lost.Key))
					if lost.Comma != "" {
						at := lost.Value.Span
						at.Start = at.End + len(lost.Value.After)
						at.End = at.Start + len(lost.Comma)
						d.Fixes = []schema.Fix{{Message: "split the object", Edits: []schema.Edit{{Span: at, NewText: " }, {"}}, Safe: true}}
					}
				}
			}
		}
	},
}
