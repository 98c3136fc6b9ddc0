package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var leadingSlash = &lint.Rule{
	Name:     "leading-slash",
	Severity: schema.Warning,
	Fixes:    lint.SafeFix,
	Summary:  `http_url begins with a "/" that lws doubles`,
	Why:      `lws puts a slash before the path. Many servers treat //path as /path, but not all.`,
	LWS: `On ws, lws requests //x for "/x" (4.2.2 to 5.0.0). On h1 only 4.1.6 does, on h2 4.1.6 and
4.2.2; later versions remove the slash first.`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "/chat" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "chat" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			s := d.Get("http_url")
			if s == nil || s.Member.Value.Kind != schema.String || !strings.HasPrefix(s.Member.Value.Text(), "/") {
				continue
			}
			doubles := map[string]func(schema.Version) bool{
				"ws": since(4, 1), "h1": before(4, 2), "h2": before(4, 3),
			}[d.Protocol()]
			if doubles == nil {
				continue
			}
			if versions := p.Versions(doubles); versions != "" {
				v := &s.Member.Value
				g := p.Reportf(inside(v, 0, 1), "lws %s puts a slash before the path: remove this one", versions)
				if strings.HasPrefix(v.Raw(), `"/`) {
					slash := schema.Span{Source: v.Span.Source, Start: v.Span.Start + 1, End: v.Span.Start + 2}
					g.Fixes = []schema.Fix{{Message: "remove the slash", Edits: []schema.Edit{{Span: slash}}, Safe: true}}
				}
			}
		}
	},
}
