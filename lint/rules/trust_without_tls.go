package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var trustWithoutTLS = &lint.Rule{
	Name:     "trust-without-tls",
	Severity: schema.Warning,
	Fixes:    lint.UnsafeFix,
	Summary:  "a streamtype has a trust store, but no TLS",
	Why: `The streamtype sends plain text, although the trust store suggests TLS. Set "tls": true,
or remove tls_trust_store.`,
	LWS: `lws loads the trust store, and connects without TLS (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleRoot + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: certUnreadable.Good,
	Check: func(p *lint.Pass) {
		for _, s := range streams(p) {
			store := s.Get("tls_trust_store")
			if store == nil || unclear(s) || s.Bool("server") || s.Bool("tls") {
				continue
			}
			d := p.Reportf(store.Member.Name.Span, "%s has a trust store, but no \"tls\": true: it is not encrypted", s)
			if tls := s.Get("tls"); s.Text("port") == "443" && tls == nil {
				at := store.Member.Name.Span
				at.End = at.Start
				d.Fixes = []schema.Fix{{Message: "set tls", Edits: []schema.Edit{{Span: at, NewText: `"tls": true, `}}}}
			}
		}
	},
}
