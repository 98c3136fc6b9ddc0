package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var serverMetadata = &lint.Rule{
	Name:     "server-metadata",
	Severity: schema.Error,
	Summary:  `an http server does not declare the metadata "method" and "path"`,
	Why: `They tell the program the method and path of a request: "metadata": [ { "method": "" }, {
"path": "" } ].`,
	LWS:  `On h1, lws drops the connection when a request arrives (4.2.2 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "server": true, "protocol": "h1", "port": 8080 } } ] }`,
	Good: `{ "s": [ { "a": { "server": true, "protocol": "h1", "port": 8080, "metadata": [ { "method": "" }, { "path": "" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			if !d.Bool("server") || d.Protocol() != "h1" {
				continue
			}
			has := map[string]bool{}
			list(d, "metadata", func(m *schema.Member) { has[m.Key] = true })
			for _, name := range []string{"method", "path"} {
				if !has[name] {
					p.Reportf(d.NameSpan, "the server %s has no metadata %q: lws drops each connection with a request; declare {%q: \"\"} in metadata", schema.QuoteName(d.Name), name, name)
				}
			}
		}
	},
}
