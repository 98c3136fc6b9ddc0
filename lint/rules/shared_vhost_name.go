package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var sharedVhostName = &lint.Rule{
	Name:     "shared-vhost-name",
	Severity: schema.Warning,
	Summary:  "a server has the name of a trust store",
	Why: `lws creates a vhost for each, and finds both by name: clients of the store may get the
vhost of the server, or lose their own with the server. Rename one of them.`,
	LWS: `With static tables, clients of the store that are created after the server cannot connect ("null
ssl ctx", measured on 5.0.0). With JSON, clients cannot connect once the server is destroyed ("SSL_new failed",
measured on 4.1.6 and 4.3.10; 5.0.0 connects).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleRoot + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } },
         { "own": { "server": true, "protocol": "raw", "port": 7681 } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleRoot + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } },
         { "b": { "server": true, "protocol": "raw", "port": 7681 } } ] }`,
	Check: func(p *lint.Pass) {
		stores := map[string]*schema.Definition{} // that clients use
		for _, u := range uses(p) {
			for _, s := range u.stores {
				stores[s.Name] = s
			}
		}
		for _, d := range streams(p) {
			if s := stores[d.Name]; s != nil && !unclear(d) && d.Bool("server") {
				g := p.Reportf(d.NameSpan, "%s has the name of %s: lws takes the vhost of one for that of the other", d, s)
				g.Related = []schema.Related{{Span: s.NameSpan, Message: "the trust store"}}
			}
		}
	},
}
