package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var finiteConceal = &lint.Rule{
	Name:     "finite-conceal",
	Severity: schema.Info,
	Summary:  "a nailed_up streamtype stops trying to connect",
	Why: `After conceal failures in a row the stream gets ALL_RETRIES_FAILED, and the program has to
connect it again. 65535 means no limit.`,
	LWS: `After ALL_RETRIES_FAILED the stream stays idle, nailed_up or not (5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 5, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 22, "protocol": "raw", "nailed_up": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 65535, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 22, "protocol": "raw", "nailed_up": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, r := range p.Policy.References {
			if r.Key.Name != "retry" || intended(r) == nil || !r.From.Bool("nailed_up") || r.From.Bool("server") {
				continue
			}
			if n, _ := number(intended(r), "conceal"); n < 65535 { // more is out-of-range
				g := p.Reportf(r.Span, "%s, which is nailed_up, gives up after %d failures in a row: 65535 means never", r.From, n+1)
				g.Related = []schema.Related{{Span: at(intended(r), "conceal"), Message: "conceal is set here"}}
			}
		}
	},
}
