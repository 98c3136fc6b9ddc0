package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var repeatedCert = &lint.Rule{
	Name:     "repeated-cert",
	Severity: schema.Warning,
	Summary:  "a certificate is in one trust store twice",
	Why: `It uses one of the six places, and probably another certificate was intended. If two names
stand for the same certificate, it is only an info.`,
	LWS: `OpenSSL accepts a duplicate certificate without an error (4.1.6 to 5.0.0).`,
	Bad: `{ "certs": [ { "one": "` + exampleRoot + `" }, { "two": "` + exampleRoot2 + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "one", "one" ] } ] }`,
	Good: `{ "certs": [ { "one": "` + exampleRoot + `" }, { "two": "` + exampleRoot2 + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "one", "two" ] } ] }`,
	Check: func(p *lint.Pass) {
		defs, uses := resolution(p).Definition, uses(p)
		var store *schema.Definition
		var names map[string]*schema.Reference
		var ders map[string]*schema.Reference
		for _, r := range p.Policy.References {
			if r.Key.Name != "stack" || r.Name == "" {
				continue
			}
			if r.From != store {
				store, names, ders = r.From, map[string]*schema.Reference{}, map[string]*schema.Reference{}
			}
			if first := names[r.Name]; first != nil {
				d := p.Reportf(r.Span, "certificate %s is already in %s", schema.QuoteName(r.Name), store)
				d.Related = []schema.Related{{Span: first.Span, Message: "here"}}
				continue
			}
			names[r.Name] = r
			if defs[r] == nil || uses[defs[r]] == nil {
				continue
			}
			if c := credentialOf(p, defs[r]); c != nil {
				if first := ders[string(c.der)]; first != nil {
					d := p.Reportf(r.Span, "certificate %s is the same as %s, which is already in %s", schema.QuoteName(r.Name), schema.QuoteName(first.Name), store)
					d.Severity = schema.Info
					d.Related = []schema.Related{{Span: first.Span, Message: "here"}}
					continue
				}
				ders[string(c.der)] = r
			}
		}
	},
}
