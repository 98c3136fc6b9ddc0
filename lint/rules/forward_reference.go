package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var forwardReference = &lint.Rule{
	Name:     "forward-reference",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "something is used before it is defined",
	Why: `lws reads a policy once, from its start to its end, so what a streamtype or trust
store names must stand before it. Put the sections in the order retry, certs,
trust_stores, auth, s.`,
	LWS: `The policy is refused, with a message that does not say what was missing; the
line number that follows it is the parser's, not the policy's (4.1.6 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "retry": "default" } } ],
  "retry": [ { "default": { "backoff": [ 1000 ] } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		mended := false
		for _, r := range p.Policy.References {
			if r.Later == nil || r.Later.Unreadable {
				continue
			}
			d := p.Reportf(r.Span, "%s is defined only later: lws needs it before it is used in %s",
				r.Later, r.From)
			d.Related = []schema.Related{{Span: r.Later.NameSpan, Message: "defined here"}}
			if mended {
				continue // the fix of the first one is for all
			}
			mended = true
			if edits := reorder(p.Policy.Document); len(edits) > 0 {
				d.Fixes = []schema.Fix{{Message: "put the sections in the order in which lws needs them", Edits: edits, Safe: true}}
			}
		}
	},
}
