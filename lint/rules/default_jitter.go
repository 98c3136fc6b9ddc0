package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var defaultJitter = &lint.Rule{
	Name:     "default-jitter",
	Severity: schema.Info,
	Summary:  "a backoff scheme without jitterpc has a jitter of 30 per cent",
	Why: `Each wait is lengthened at random by up to jitterpc per cent. 0 counts as missing; the
smallest jitter is 1.`,
	LWS:  `lws adds up to 30 per cent (5.0.0).`,
	Bad:  `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 5, "jitterpc": 0 } } ], "s": [] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 5, "jitterpc": 1 } } ], "s": [] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Section(schema.Retry) {
			switch n, ok := number(d, "jitterpc"); {
			case d.Value.Kind != schema.ObjectKind:
			case d.Get("jitterpc") == nil:
				p.Reportf(d.NameSpan, "%s has no jitterpc: lws adds up to 30 per cent to each wait", d)
			case ok && n == 0:
				p.Reportf(d.Get("jitterpc").Member.Value.Span, "lws reads 0 as 30 per cent: the minimum is 1")
			}
		}
	},
}
