package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var joinedCerts = &lint.Rule{
	Name:       "joined-certs",
	ParserOnly: true,
	Severity:   schema.Error,
	Fixes:      lint.SafeFix,
	Summary:    "an object contains several certificates",
	Why:        `Each certificate needs its own object: [ {"one": "..."}, {"two": "..."} ].`,
	LWS: `lws stores a certificate at the end of its object, so it stores only the last one. The
others stay empty, and a trust store omits them without an error (4.1.6 to 5.0.0).`,
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
					d := p.Reportf(lost.Name.Span, "certificate %s is lost: lws keeps the last of several in one object, so give it its own",
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
