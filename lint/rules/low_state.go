package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var lowState = &lint.Rule{
	Name:     "low-state",
	Severity: schema.Error,
	Summary:  "an HTTP status is mapped to a state below 1000",
	Why:      `States below 1000 belong to lws. Those of a program start at 1000.`,
	LWS: `lws destroys the stream if the state does not exist or is not legal at that time; other
states change what the stream gets afterwards (4.2.2 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "http_resp_map": [ { "404": 404 } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "http_resp_map": [ { "404": 1404 } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			list(d, "http_resp_map", func(m *schema.Member) {
				if n, ok := numeral(&m.Value); ok && n < 1000 {
					p.Reportf(m.Value.Span, "states of a program start at 1000: with %d lws destroys the stream, or gives it a wrong state", n)
				}
			})
		}
	},
}
