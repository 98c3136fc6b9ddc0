package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var incompleteChain = &lint.Rule{
	Name:     "incomplete-chain",
	Severity: schema.Info,
	Summary:  "a trust store holds an intermediate certificate without its issuer",
	Why: `OpenSSL accepts a chain only if it leads to a trusted root; an intermediate certificate is
not enough. Put the root into the trust store. Mbed TLS does not need it, nor OpenSSL if the
system trusts the root.`,
	LWS: `lws trusts the certificates of a store as a set, in any order, in addition to those of
the system. With only an intermediate certificate, OpenSSL finds no issuer and fails (OpenSSL 3.0,
as lws 4.1.6 to 5.0.0 use it).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "ca": "` + exampleIntermediate + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "ca" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "ca": "` + exampleIntermediate + `" }, { "root": "` + exampleRoot + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "ca", "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		stacks := stacked(p)
		defs := resolution(p).Definition
		for _, r := range p.Policy.References {
			d := defs[r]
			if d == nil || r.Key.Name != "stack" || stacks[r.From] == nil {
				continue
			}
			c := credentialOf(p, d)
			if c == nil || c.cert == nil || selfIssued(c.cert) || !mayIssue(c.cert) || p.At.After(c.cert.NotAfter) {
				continue
			}
			found := false
			for _, other := range stacks[r.From] {
				o := credentialOf(p, other)
				found = found || o != nil && (o.cert == nil || issued(o.cert, c.cert)) // an unreadable one may be the issuer
			}
			if !found {
				p.Reportf(r.Span, "%s is issued by %s, which is not in %s", d, schema.QuoteName(c.cert.Issuer.String()), r.From)
			}
		}
	},
}
