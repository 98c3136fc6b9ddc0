package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var rideshareMismatch = &lint.Rule{
	Name:     "rideshare-mismatch",
	Severity: schema.Error,
	Summary:  "streamtypes of different kinds cannot share a request",
	Why: `The streamtypes of a rideshare send their messages in one HTTP request, so all of them
must be clients with the same protocol: h1, h2 or h3.`,
	LWS: `lws sends the messages of the second streamtype over the connection of the first, with
its settings (4.1.6 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h2", "http_method": "POST", "http_url": "",
                  "http_multipart_name": "a", "rideshare": "b" } },
         { "b": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "POST", "http_url": "",
                  "http_multipart_name": "b" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h2", "http_method": "POST", "http_url": "",
                  "http_multipart_name": "a", "rideshare": "b" } },
         { "b": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h2", "http_method": "POST", "http_url": "",
                  "http_multipart_name": "b" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, r := range p.Policy.References {
			d, other := r.From, r.Target
			if r.Key.Name != "rideshare" || unclear(d) || d.Bool("server") || d.Get("rideshare").Member.Value.Span != r.Span {
				continue
			}
			protocol := d.Protocol()
			var g *schema.Diagnostic
			switch {
			case protocol == "" || r.Name == "":
				continue
			case d.Bool("local_sink"):
				g = p.Reportf(r.Span, "%s is a local sink, which has no request to share", d)
			case !http(protocol):
				g = p.Reportf(r.Span, "%s speaks %s, which has no request to share", d, protocol)
			case other == nil || other.Protocol() == "":
				continue
			case other.Bool("server") || other.Bool("local_sink"):
				g = p.Reportf(r.Span, "%s sends no request that %s can share", other, d)
			case other.Protocol() != protocol:
				g = p.Reportf(r.Span, "%s speaks %s and %s %s: they cannot share a request", d, protocol, other, other.Protocol())
			default:
				continue
			}
			if other != nil {
				g.Related = []schema.Related{{Span: other.NameSpan, Message: "defined here"}}
			}
		}
	},
}
