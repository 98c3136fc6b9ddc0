package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var opportunisticNailedUp = &lint.Rule{
	Name:     "opportunistic-nailed-up",
	Severity: schema.Warning,
	Summary:  "a streamtype is both opportunistic and nailed_up",
	Why: `nailed_up keeps a connection at all times; opportunistic does not restore a lost one.
With both, the stream connects once.`,
	LWS: `The stream connects when it is created. When the server closes the connection, it stays
closed (4.3.10 and 5.0.0).`,
	Bad: `{ "retry": [ { "always": { "backoff": [ 1000 ], "conceal": 65535 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 22, "protocol": "raw", "nailed_up": true, "opportunistic": true, "retry": "always" } } ] }`,
	Good: `{ "retry": [ { "always": { "backoff": [ 1000 ], "conceal": 65535, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 22, "protocol": "raw", "nailed_up": true, "retry": "always" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Bool("opportunistic") && d.Bool("nailed_up") {
				s := d.Get("opportunistic")
				g := p.Reportf(s.Member.Name.Span, "opportunistic keeps lws from connecting again, which nailed_up requires: remove one of them")
				g.Related = []schema.Related{{Span: d.Get("nailed_up").Member.Name.Span, Message: "the other one"}}
			}
		}
	},
}
