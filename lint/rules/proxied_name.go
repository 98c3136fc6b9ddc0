package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var proxiedName = &lint.Rule{
	Name:     "proxied-name",
	Severity: schema.Warning,
	Summary:  "a name is too long for the proxy of lws",
	Why: `In a policy for a proxy, which has proxy_buflen or client_buflen, the name of a
streamtype has at most 31 bytes, that of a metadata item at most 30.`,
	LWS: `The proxy closes the link to its client when it gets a longer name (seen on the wire
with 5.0.0).`,
	Bad: `{ "s": [ { "the-temperature-of-the-second-basement": { "endpoint": "example.com", "port": 80, "protocol": "h1",
                  "http_method": "GET", "http_url": "", "proxy_buflen": 65536 } } ] }`,
	Good: `{ "s": [ { "temperature": { "endpoint": "example.com", "port": 80, "protocol": "h1",
                  "http_method": "GET", "http_url": "", "proxy_buflen": 65536 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if !proxied(d) {
				continue
			}
			if len(d.Name) > 31 {
				p.Reportf(d.NameSpan, "the proxy of lws takes names of up to 31 bytes, and this has %d", len(d.Name))
			}
			list(d, "metadata", func(m *schema.Member) {
				if len(m.Key) > 30 {
					p.Reportf(m.Name.Span, "the proxy of lws takes metadata names of up to 30 bytes, and this has %d", len(m.Key))
				}
			})
		}
	},
}
