package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var duplicateDefinition = &lint.Rule{
	Name:     "duplicate-definition",
	Severity: schema.Error,
	Summary:  "two entries of a section have the same name",
	Why:      `They are not merged: lws uses one of them. To change an entry for a test, use an overlay.`,
	LWS: `lws keeps both and finds the newer one. References between the two keep the older one (4.1.6
to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80 } },
         { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80 } },
         { "b": { "endpoint": "example.com", "http_method": "GET", "port": 8443 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Definitions {
			if first := p.Policy.Lookup(d.Section, d.Name)[0]; first != d {
				g := p.Reportf(d.NameSpan, "%s is defined again: of two with the same name, lws uses the last", d)
				g.Related = []schema.Related{{Span: first.NameSpan, Message: "first defined here"}}
			}
		}
	},
}
