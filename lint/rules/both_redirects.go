package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var bothRedirects = &lint.Rule{
	Name:     "both-redirects",
	Severity: schema.Warning,
	Summary:  "redirects are both followed and failures",
	Why: `http_fail_redirect treats a redirect as the sign of a captive portal; allow_redirects
follows it. Without either, a redirect is a failure to connect.`,
	LWS: `With both, lws follows the redirect, and the response of its target is a success (4.1.6,
4.3.10 and 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "http_fail_redirect": true, "allow_redirects": true } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "http_fail_redirect": true } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Bool("allow_redirects") && d.Bool("http_fail_redirect") {
				g := p.Reportf(d.Get("allow_redirects").Member.Name.Span, "with allow_redirects the redirect is followed, though for http_fail_redirect it is a failure: remove one of them")
				g.Related = []schema.Related{{Span: d.Get("http_fail_redirect").Member.Name.Span, Message: "the other one"}}
			}
		}
	},
}
