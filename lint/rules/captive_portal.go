package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var captivePortal = &lint.Rule{
	Name:     "captive-portal",
	Severity: schema.Warning,
	Summary:  "captive_portal_detect cannot detect a captive portal",
	Why: `lws uses this streamtype to detect a captive portal. It requests, without TLS, a
resource with one known status, such as 204. A portal answers with a redirect or a page.`,
	LWS: `The status of http_expect means no portal, a redirect with http_fail_redirect means a
portal, and anything else means no internet (5.0.0).`,
	Bad: `{ "s": [ { "captive_portal_detect": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "generate_204" } } ] }`,
	Good: `{ "s": [ { "captive_portal_detect": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "generate_204",
                                      "http_expect": 204, "http_fail_redirect": true } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Lookup(schema.Streams, "captive_portal_detect") {
			if d.Value.Kind != schema.ObjectKind {
				continue
			}
			if n, _ := number(d, "http_expect"); n == 0 {
				p.Reportf(d.NameSpan, "without http_expect, lws treats the page of a captive portal as the internet")
			}
			if !d.Bool("http_fail_redirect") {
				p.Reportf(d.NameSpan, "without http_fail_redirect, lws does not treat a redirect as a captive portal")
			}
			if d.Bool("tls") {
				p.Reportf(d.Get("tls").Member.Name.Span, "a captive portal cannot answer for a server with TLS: leave tls out")
			}
		}
	},
}
