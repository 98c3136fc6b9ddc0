package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var backoffCut = &lint.Rule{
	Name:     "backoff-cut",
	Severity: schema.Info,
	Summary:  "lws 4.4 to 5.0 keep only the first wait of a backoff scheme",
	Why: `The policy is correct: lws before 4.4, the C tables of sspolicy and its Go runtime use all
waits. An lws that reads the JSON itself waits the first one before every retry, so choose a
first wait that is harmless.`,
	LWS: `4.5.8 and 5.0.0 keep 1000 of [1000, 2000, 3000], and wait that long each time. 4.1.6 to
4.3.10 keep all.`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000, 2000, 3000 ], "conceal": 5, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 5, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		cut := p.Versions(func(v schema.Version) bool { return !v.KeepsBackoff() })
		if cut == "" {
			return
		}
		var g *schema.Diagnostic
		for _, d := range p.Policy.Section(schema.Retry) {
			s := d.Get("backoff")
			if s == nil || len(s.Member.Value.Elems()) < 2 {
				continue
			}
			if waits := s.Member.Value.Elems(); g == nil {
				g = p.Reportf(s.Member.Value.Span, "lws %s keeps only the first of these %d waits, %s", cut, len(waits), waits[0].Value.Raw())
			} else {
				g.Related = append(g.Related, schema.Related{Span: s.Member.Value.Span, Message: "and here"})
			}
		}
	},
}
