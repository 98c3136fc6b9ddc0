package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var badURL = &lint.Rule{
	Name:     "bad-url",
	Severity: schema.Error,
	Summary:  "http_url is invalid in a request",
	Why: `http_url is the path and query of a request. White space and control characters are
written as %20 and so on. A fragment ("#...") is for browsers and is not sent, and the host
belongs in endpoint.`,
	LWS: `lws sends http_url unchanged, after a slash: a blank or line end splits the request line
(4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "http://example.com/index.html" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "index.html" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			s := d.Get("http_url")
			if s == nil || s.Key == nil || !s.Key.Serves(d.Protocol()) || s.Member.Value.Kind != schema.String {
				continue
			}
			v := &s.Member.Value
			text := v.Text()
			if len(text) > schema.MaxString {
				continue // a bad-length
			}
			lower := strings.ToLower(text)
			if i := strings.IndexFunc(text, func(r rune) bool { return r == ' ' || r == '\t' || policy.IsControl(r) }); i >= 0 {
				p.Reportf(inside(v, i, i+1), "http_url holds %q, which ends the path of a request: write %%%02X", text[i], text[i])
			} else if scheme, _, found := strings.Cut(lower, "://"); found && strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz") == "" {
				p.Reportf(inside(v, 0, len(scheme)+len("://")), "http_url is a path, not a URL: the host belongs in endpoint")
			} else if i := strings.IndexByte(text, '#'); i >= 0 {
				p.Reportf(inside(v, i, len(text)), "lws sends %s to the server, which is not part of a path: write %%23, or remove it", schema.QuoteName(text[i:])).Severity = schema.Warning
			}
		}
	},
}
