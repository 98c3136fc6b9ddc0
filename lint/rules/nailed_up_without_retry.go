package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var nailedUpWithoutRetry = &lint.Rule{
	Name:     "nailed-up-without-retry",
	Severity: schema.Warning,
	Summary:  "a nailed_up streamtype has no retry",
	Why: `Without a backoff scheme there are no retries. Define one with "conceal": 65535, which
has no limit, and name it in retry.`,
	LWS: `The stream connects once. If that fails it gets UNREACHABLE, and lws does not try again; if
the server closes the connection, it stays closed (4.3.10 and 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 22, "protocol": "raw", "nailed_up": true } } ] }`,
	Good: `{ "retry": [ { "always": { "backoff": [ 1000 ], "conceal": 65535, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 22, "protocol": "raw", "nailed_up": true, "retry": "always" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Bool("nailed_up") && d.Get("retry") == nil {
				p.Reportf(d.Get("nailed_up").Member.Name.Span, "without retry, lws gives up after the first failure of %s", d)
			}
		}
	},
}
