package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var captivePortal = &lint.Rule{
	Name:     "captive-portal",
	Severity: schema.Warning,
	Summary:  "captive_portal_detect can't detect a captive portal",
	Why: `lws uses this streamtype to find out whether there is a captive portal between it and the
internet. It asks, without TLS, for something that answers with one known status, such as
204: a portal answers with a redirect, or with a page.`,
	LWS: `The status of http_expect means that there is none, a redirect with http_fail_redirect that
there is one, and all else that there is no internet (5.0.0).`,
	Bad: `{ "s": [ { "captive_portal_detect": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "generate_204" } } ] }`,
	Good: `{ "s": [ { "captive_portal_detect": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "generate_204",
                                      "http_expect": 204, "http_fail_redirect": true } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Lookup(schema.Streams, "captive_portal_detect") {
			if d.Value.Kind != schema.ObjectKind {
				continue
			}
			if n, _ := number(d, "http_expect"); n == 0 {
				p.Reportf(d.NameSpan, "without http_expect, lws takes the page of a captive portal for the internet")
			}
			if !d.Bool("http_fail_redirect") {
				p.Reportf(d.NameSpan, "without http_fail_redirect, lws does not take a redirect for a captive portal")
			}
			if d.Bool("tls") {
				p.Reportf(d.Get("tls").Member.Name.Span, "a captive portal can't answer in the place of a server with TLS: leave tls out")
			}
		}
	},
}
