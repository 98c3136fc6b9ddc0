package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unsupportedVersion = &lint.Rule{
	Name:     "unsupported-version",
	Severity: schema.Error,
	Summary:  "a key or value is newer than the lws version that the policy is for",
	Why: `The lws versions are those of --lws, or the latest. A release line such as 4.3 stands
for its newest release.`,
	LWS: `An older lws treats it as an unknown key: in a streamtype it becomes a phantom, which
gets all later keys. 4.1.6 to 4.3.10 cannot use a file:// endpoint.`,
	Bad:      `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "tls": true, "protocol": "h3" } } ] }`,
	Good:     `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "tls": true, "protocol": "h2" } } ] }`,
	Shape:    true,
	Versions: []schema.Version{{Major: 4, Minor: 3}},
	Check: func(p *lint.Pass) {
		check := func(s *schema.Setting) {
			if s.Key == nil {
				return
			}
			v := &s.Member.Value
			if without := p.Versions(func(lws schema.Version) bool { return !s.Key.In(lws) }); without != "" {
				p.Reportf(s.Member.Name.Span, "lws %s has no %s: it came with %s", without, s.Key.Name, s.Key.Since)
			} else if without := p.Versions(func(lws schema.Version) bool { return !s.Key.ValueIn(v.Text(), lws) }); without != "" {
				p.Reportf(v.Span, "lws %s has no %s %s: it came with %s", without, s.Key.Name, schema.QuoteName(v.Text()), s.Key.ValueSince[v.Text()])
			}
		}
		for _, m := range p.Policy.Document.Root.Members() {
			check(&schema.Setting{Key: schema.LookupKey(schema.Top, m.Key), Member: m})
		}
		for _, d := range p.Policy.Definitions {
			if d.Section == schema.Auth || d.Section == schema.Metrics {
				continue // their keys came with the section
			}
			for _, s := range d.Settings {
				check(s)
			}
		}
		if without := p.Versions(before(4, 4)); without != "" {
			for _, d := range clients(p) {
				if strings.HasPrefix(d.Text("endpoint"), "file://") {
					p.Reportf(at(d, "endpoint"), "lws %s has no endpoints of file://: they came with 4.4", without)
				}
			}
		}
	},
}
