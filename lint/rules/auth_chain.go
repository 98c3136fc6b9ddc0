package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var authChain = &lint.Rule{
	Name:     "auth-chain",
	Severity: schema.Info,
	Fixes:    lint.UnsafeFix,
	Summary:  "the streamtype of an auth scheme does not exist, or needs the scheme itself",
	Why: `The streamtype of an auth scheme fetches its token. It must exist, and must not
authenticate with the same scheme.`,
	LWS: `lws stores the name and does not use it (4.2 to 5.0, by the source).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "auth": [ { "name": "aws", "type": "sigv4", "streamtype": "token", "blob": 0 } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default", "use_auth": "aws",
                  "metadata": [ { "region": "" }, { "service": "" } ], "aws_region": "region", "aws_service": "service" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "auth": [ { "name": "aws", "type": "sigv4", "blob": 0 } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default", "use_auth": "aws",
                  "metadata": [ { "region": "" }, { "service": "" } ], "aws_region": "region", "aws_service": "service" } } ] }`,
	Check: func(p *lint.Pass) {
		streams := streams(p)
		next := map[*schema.Definition]*schema.Reference{}
		for _, r := range p.Policy.References {
			if r.Key.Name == "use_auth" {
				next[r.From] = r
			}
		}
		auths := p.Policy.Section(schema.Auth)
		for _, a := range auths {
			s := a.Get("streamtype")
			if s == nil || s.Member.Value.Kind != schema.String || len(streams) == 0 {
				continue
			}
			v := &s.Member.Value
			defs := p.Policy.Lookup(schema.Streams, v.Text())
			if len(defs) > 0 {
				next[a] = &schema.Reference{From: a, Key: s.Key, Span: v.Span, Name: v.Text(), Target: defs[len(defs)-1]}
				continue
			}
			d := p.Reportf(v.Span, "%s is for streamtype %s, which does not exist", a, schema.QuoteName(v.Text()))
			if better := nearest(p, schema.Streams, v.Text()); better != "" {
				d.Message += ": did you mean " + schema.QuoteName(better) + "?"
				d.Fixes = []schema.Fix{{
					Message: "write " + better,
					Edits:   []schema.Edit{{Span: v.Span, NewText: schema.Quote(better)}},
				}}
			}
		}
		for _, loop := range loops(auths, next) {
			for _, a := range loop {
				if a.Section == schema.Auth {
					by, scheme := next[next[a].Target], "it"
					if by.Target != a {
						scheme = "a scheme that needs it in turn"
					}
					d := p.Reportf(next[a].Span, "%s needs %s, which authenticates by %s", a, by.From, scheme)
					d.Related = []schema.Related{{Span: by.Span, Message: "it authenticates by this"}}
					break
				}
			}
		}
	},
}
