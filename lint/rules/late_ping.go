package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var latePing = &lint.Rule{
	Name:     "late-ping",
	Severity: schema.Warning,
	Summary:  "svalidping is not below svalidhup, so no ping is sent",
	Why: `An idle connection is probed after svalidping and closed after svalidhup seconds,
counted from the last received data. Leave the peer some seconds to answer.`,
	LWS:  `lws closes the connection after svalidhup seconds without a ping (ws, 4.3.10 and 5.0.0).`,
	Bad:  `{ "retry": [ { "default": { "backoff": [ 1000 ], "jitterpc": 20, "svalidping": 35, "svalidhup": 30 } } ], "s": [] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ], "jitterpc": 20, "svalidping": 30, "svalidhup": 35 } } ], "s": [] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Section(schema.Retry) {
			ping, ok := number(d, "svalidping")
			hup, ok2 := number(d, "svalidhup")
			if ok && ok2 && hup != 0 && ping >= hup {
				g := p.Reportf(at(d, "svalidping"), "lws closes the connection after %d seconds, before it would send a ping", hup)
				g.Related = []schema.Related{{Span: at(d, "svalidhup"), Message: "svalidhup is set here"}}
			}
		}
	},
}
