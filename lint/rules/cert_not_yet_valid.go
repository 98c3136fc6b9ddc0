package rules

import (
	"time"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var certNotYetValid = &lint.Rule{
	Name:     "cert-not-yet-valid",
	Severity: schema.Warning,
	Summary:  "a certificate is not valid yet",
	Why: `Servers that depend on it are refused before that day. For a policy that is used later,
set the day with --at.`,
	LWS: `lws loads it without an error; each connection that depends on it fails until that day
(4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleFuture + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: certUnreadable.Good,
	Check: func(p *lint.Pass) {
		certs(p, func(d *schema.Definition, c *credential, _ *use) {
			if c.cert != nil && p.At.Before(c.cert.NotBefore) {
				p.Reportf(d.NameSpan, "%s is not valid before %s", d, c.cert.NotBefore.UTC().Format(time.DateOnly))
			}
		})
	},
}
