package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var badPreamble = &lint.Rule{
	Name:     "bad-preamble",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "http_auth_preamble cannot precede a token",
	Why: `The header is the preamble with the token directly after it: "Bearer " has a blank at its
end. It cannot hold control characters, such as a line end. It has no effect without http_auth_header.`,
	LWS: `lws puts the token after the preamble and nothing between them (4.1.6 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "http_auth_header": "authorization:", "http_auth_preamble": "Bearer" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "http_auth_header": "authorization:", "http_auth_preamble": "Bearer " } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			s := d.Get("http_auth_preamble")
			if s == nil || s.Key == nil || !s.Key.Serves(d.Protocol()) || s.Member.Value.Kind != schema.String {
				continue
			}
			v := &s.Member.Value
			text := v.Text()
			if i := strings.IndexFunc(text, policy.IsControl); i >= 0 {
				p.Reportf(inside(v, i, i+1), "a header cannot hold the control character %q", text[i])
			} else if scheme := lowerASCII(text); scheme == "bearer" || scheme == "basic" || scheme == "token" || scheme == "digest" || scheme == "negotiate" {
				g := p.Reportf(v.Span, "the token follows directly after %s: write %s", schema.Quote(text), schema.Quote(text+" "))
				g.Severity = schema.Warning
				suggest(g, v, text+" ")
			} else if lacks(d, "http_auth_header") {
				p.Reportf(s.Member.Name.Span, "http_auth_preamble has no effect: %s has no http_auth_header", d).Severity = schema.Warning
			}
		}
	},
}
