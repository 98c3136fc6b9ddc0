package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var dottedName = &lint.Rule{
	Name:       "dotted-name",
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    `the name of a streamtype or backoff scheme contains "." or "["`,
	Why: `The names are part of paths such as s[].NAME.port, by which lws finds keys. Names of
certificates, trust stores and metadata may contain both.`,
	LWS: `With a "." in the name, each key of the streamtype becomes a phantom streamtype, and a
backoff scheme stays empty. A name that ends like a key, such as "a.port", is read as that
key (4.1.6 to 5.0.0). "[" has the same effect from 4.4 on.`,
	Bad:  `{ "s": [ { "api.example.com": { "endpoint": "api.example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "api": { "endpoint": "api.example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Definitions {
			if d.Section != schema.Streams && d.Section != schema.Retry {
				continue
			}
			versions := p.Versions(since(4, 4))
			switch i := strings.LastIndexByte(d.Name, '.'); {
			case i >= 0 && schema.LookupKey(d.Section, d.Name[i+1:]) != nil:
				p.Reportf(d.NameSpan, "lws reads this name as the key %s: write it without \".\"", d.Name[i+1:])
			case i >= 0 && d.Section == schema.Streams:
				p.Reportf(d.NameSpan, "with a \".\" in the name, lws makes a phantom streamtype of each key in it: write it without")
			case i >= 0:
				p.Reportf(d.NameSpan, "with a \".\" in the name, lws leaves the backoff scheme empty: write it without")
			case strings.Contains(d.Name, "[") && versions != "":
				p.Reportf(d.NameSpan, "with a \"[\" in the name, lws %s loses the keys in it: write it without", versions)
			}
		}
	},
}
