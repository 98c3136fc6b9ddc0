package rules

import (
	"crypto/x509"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var certNotCA = &lint.Rule{
	Name:     "cert-not-ca",
	Severity: schema.Warning,
	Summary:  "a trust store contains a certificate that is not of a CA",
	Why: `A trust store contains certificates of issuers, preferably of the root. A certificate of
a server works there only if it is self-issued; the rule does not report those.`,
	LWS: `lws loads it without an error. Its OpenSSL does not accept the server, even if the server
shows this certificate (4.1.6 to 5.0.0, OpenSSL 3.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleRoot + `" }, { "server": "` + exampleLeaf + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root", "server" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: certUnreadable.Good,
	Check: func(p *lint.Pass) {
		certs(p, func(d *schema.Definition, c *credential, u *use) {
			if c.cert == nil || len(u.stores) == 0 || selfIssued(c.cert) || mayIssue(c.cert) {
				return
			}
			g := p.Reportf(d.NameSpan, "%s, in %s, is not a CA's: put the certificate of its issuer there", d, u.stores[0])
			g.Related = []schema.Related{{Span: u.stores[0].NameSpan, Message: "the trust store"}}
		})
	},
}

// mayIssue reports whether a certificate is one that may issue others.
func mayIssue(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0)
}
