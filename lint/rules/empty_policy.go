package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var emptyPolicy = &lint.Rule{
	Name:     "empty-policy",
	Severity: schema.Warning,
	Summary:  "the policy has no streamtype",
	Why: `No stream can be created with it. Check a fragment for an overlay with --fragment. If
the policy needs no streamtype, write { "s": [] }.`,
	LWS: `4.1 to 4.3 refuse {} (4.1.6, 4.2.2 and 4.3.10).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ], "s": [] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		root := &p.Policy.Document.Root
		if root.Kind != schema.ObjectKind || root.Object.Close == "" || len(streams(p)) > 0 {
			return
		}
		at := root.Span
		if refuse := p.Versions(before(4, 4)); refuse != "" && len(root.Members()) == 0 {
			p.Reportf(at, `lws %s refuses an empty object: write { "s": [] }`, refuse).Severity = schema.Error
			return
		}
		for _, m := range root.Members() {
			if m.Key == "s" {
				if m.Value.Kind != schema.ArrayKind || len(m.Value.Elems()) > 0 {
					return // another finding
				}
				at = m.Span()
			}
		}
		at.End = min(at.End, at.Start+1)
		if root.Members() != nil && at.Start != root.Span.Start {
			at = schema.Span{Source: at.Source, Start: at.Start, End: at.Start + len(`"s"`)}
		}
		p.Reportf(at, "the policy has no streamtype")
	},
}
