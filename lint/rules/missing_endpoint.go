package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingEndpoint = &lint.Rule{
	Name:     "missing-endpoint",
	Severity: schema.Error,
	Summary:  "a client streamtype has no endpoint",
	Why: `The endpoint is the host to connect to. Only a server (server: true) and a sink
(local_sink: true) can do without.`,
	LWS:  `lws crashes when the stream connects (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Firm: true,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if lacks(d, "endpoint") {
				p.Reportf(d.NameSpan, "%s has no endpoint: lws crashes when it connects", d)
			}
		}
	},
}
