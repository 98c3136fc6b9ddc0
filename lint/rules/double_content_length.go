package rules

import (
	"slices"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var doubleContentLength = &lint.Rule{
	Name:     "double-content-length",
	Severity: schema.Warning,
	Fixes:    lint.SafeFix,
	Summary:  "a form is sent with two content-length headers",
	Why: `http_www_form_urlencoded sends its own content-length. Servers may refuse a request with
two.`,
	LWS: `lws sends both headers on h1 unless http_no_content_length is set, and one on h2 (4.2.2 to
5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "login",
                  "http_www_form_urlencoded": true } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "login",
                  "http_www_form_urlencoded": true, "http_no_content_length": true } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Protocol() == "h1" && d.Bool("http_www_form_urlencoded") && !d.Bool("http_no_content_length") &&
				slices.Contains([]string{"POST", "PUT", "PATCH"}, d.Text("http_method")) {
				s := d.Get("http_www_form_urlencoded")
				g := p.Reportf(s.Member.Name.Span, "lws sends two content-length headers for a form: set http_no_content_length, which leaves one")
				if d.Get("http_no_content_length") == nil {
					insert(g, s.Member, `"http_no_content_length": true`)
				}
			}
		}
	},
}
