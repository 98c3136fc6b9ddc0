package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var headerColon = &lint.Rule{
	Name:     "header-colon",
	Severity: schema.Info,
	Fixes:    lint.SafeFix,
	Summary:  "the name of a header has no colon",
	Why: `Write "content-type:", not "content-type". It is a warning if the policy is for lws 4.1 or
4.2.`,
	LWS: `4.1.6 and 4.2.2 send the header without a colon, which no server understands. Later
versions add it, but find a header unknown to lws in a response only if its name in the policy has
the colon (4.3.10 and 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "metadata": [ { "id": "x-id" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "metadata": [ { "id": "x-id:" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		old := p.Versions(before(4, 3))
		for _, d := range streams(p) {
			eachHeader(d, func(v *schema.Value) {
				name := v.Text()
				if !policy.IsToken(name) || looksSecret(name) || headerPrefixOf(name) != "" && strings.TrimSuffix(headerPrefixOf(name), ":") != name {
					return // the latter is a header-prefix
				}
				g := p.Reportf(v.Span, "write %s, with a colon", schema.Quote(name+":"))
				if old != "" {
					g.Severity = schema.Warning
					g.Message += ": lws " + old + " sends none"
				}
				write(g, v, name+":")
			})
		}
	},
}

// eachHeader calls f for each name of a header in a streamtype that carries
// any.
func eachHeader(d *schema.Definition, f func(*schema.Value)) {
	if protocol := d.Protocol(); !http(protocol) {
		return
	}
	for _, s := range d.Settings {
		if s.Key != nil && strings.HasPrefix(s.Key.Member, "u.http.blob_header") && s.Member.Value.Kind == schema.String && s.Member.Value.Text() != "" {
			f(&s.Member.Value)
		}
	}
	list(d, "metadata", func(m *schema.Member) {
		if m.Value.Kind == schema.String && m.Value.Text() != "" {
			f(&m.Value)
		}
	})
}
