package lint

import (
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

var unsupportedVersion = &Rule{
	Name:     "unsupported-version",
	Severity: schema.Error,
	Summary:  "a key or value is newer than the lws version that the policy is for",
	Why: `The versions are those given with --lws, or the latest. A version stands for the
newest release of its line.`,
	LWS: `To an older lws the key is an unknown one: in a streamtype it makes a phantom of
it, which takes every later key. A file:// endpoint can not be
reached (4.1.6 to 4.3.10).`,
	Bad:      `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "protocol": "h3" } } ] }`,
	Good:     `{ "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 8443, "protocol": "h2" } } ] }`,
	Versions: []schema.Version{{Major: 4, Minor: 3}},
	check: func(p *pass) {
		check := func(s *schema.Setting) {
			if s.Key == nil {
				return
			}
			v := &s.Member.Value
			if without := p.versions(func(lws schema.Version) bool { return !s.Key.In(lws) }); without != "" {
				p.report(s.Member.Name.Span, "lws %s has no %s: it came with %s", without, s.Key.Name, s.Key.Since)
			} else if without := p.versions(func(lws schema.Version) bool { return !s.Key.ValueIn(v.Text(), lws) }); without != "" {
				p.report(v.Span, "lws %s has no %s %s: it came with %s", without, s.Key.Name, schema.QuoteName(v.Text()), s.Key.ValueSince[v.Text()])
			}
		}
		for _, m := range p.policy.Document.Root.Members() {
			check(&schema.Setting{Key: schema.LookupKey(schema.Top, m.Key), Member: m})
		}
		for _, d := range p.policy.Definitions {
			if d.Section == schema.Auth || d.Section == schema.Metrics {
				continue // their keys came with the section
			}
			for _, s := range d.Settings {
				check(s)
			}
		}
		if without := p.versions(before(4, 4)); without != "" {
			for _, d := range p.clients() {
				if strings.HasPrefix(d.Text("endpoint"), "file://") {
					p.report(at(d, "endpoint"), "lws %s has no endpoints of file://: they came with 4.4", without)
				}
			}
		}
	},
}

// versions returns those of the versions asked for that f holds for.
func (p *pass) versions(f func(schema.Version) bool) string {
	var which []string
	for _, v := range p.LWS {
		if f(v) {
			which = append(which, v.String())
		}
	}
	return strings.Join(which, ", ")
}
