package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var longEndpoint = &lint.Rule{
	Name:     "long-endpoint",
	Severity: schema.Error,
	Summary:  "the endpoint is longer than lws supports",
	Why: `The text that replaces ${name} counts too. In a policy for an older lws, write a short
endpoint and put the path into http_url.`,
	LWS: `The endpoint has up to 95 bytes in 4.1.6, 4.2.2 and 4.3.10, 191 in 4.5.8 and 239 in 5.0.0.
lws does not connect to a longer one.`,
	Bad: `{ "s": [ { "a": { "endpoint": "reports.temperature.second-basement.southern-building.headquarters.devices.production.example.com",
                  "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good:     `{ "s": [ { "a": { "endpoint": "reports.devices.example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Versions: []schema.Version{{Major: 4, Minor: 3}},
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			s := d.Get("endpoint")
			if s == nil || s.Member.Value.Kind != schema.String {
				continue
			}
			n := len(s.Member.Value.Text())
			for _, sym := range symbols(s.Member.Value.Text()) {
				n -= sym.end - sym.start
			}
			if over := p.Versions(func(v schema.Version) bool { return n > longestEndpoint(v) }); over != "" {
				most := n
				for _, v := range p.LWS {
					most = min(most, longestEndpoint(v))
				}
				p.Reportf(s.Member.Value.Span, "the endpoint has %d bytes, and lws %s supports %d", n, over, most)
			}
		}
	},
}

func longestEndpoint(v schema.Version) int {
	switch {
	case before(4, 5)(v):
		return 95
	case before(5, 0)(v):
		return 191
	}
	return 239
}
