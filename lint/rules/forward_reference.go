package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var forwardReference = &lint.Rule{
	Name:     "forward-reference",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "a definition is used before it is defined",
	Why: `lws reads a policy once, from start to end, so a streamtype or trust store can refer
only to earlier definitions. The order retry, certs, trust_stores, auth, s always works.`,
	LWS: `lws refuses the policy. Its message does not name the missing definition, and has a line
number of the parser's source (4.1.6 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "retry": "default" } } ],
  "retry": [ { "default": { "backoff": [ 1000 ] } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		fixed := false
		for _, r := range p.Policy.References {
			if r.Later == nil || r.Later.Unreadable {
				continue
			}
			d := p.Reportf(r.Span, "%s is defined after its use in %s",
				r.Later, r.From)
			d.Related = []schema.Related{{Span: r.Later.NameSpan, Message: "defined here"}}
			if fixed {
				continue // the first fix covers all references
			}
			fixed = true
			if edits := reorder(p.Policy.Document); len(edits) > 0 {
				d.Fixes = []schema.Fix{{Message: "put the sections in the order in which lws needs them", Edits: edits, Safe: true}}
			}
		}
	},
}
