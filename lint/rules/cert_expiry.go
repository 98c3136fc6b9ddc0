package rules

import (
	"crypto/x509"
	"time"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var certExpiry = &lint.Rule{
	Name:     "cert-expiry",
	Severity: schema.Warning,
	Summary:  "a certificate has expired, or expires soon",
	Why: `Servers that depend on it are refused after that day. --cert-warn sets how early the
rule reports it, and --at the day of the check. An intermediate certificate whose issuer is in the
same trust store is not needed there, so its expiry is only an info.`,
	LWS: `lws loads an expired certificate without an error; each connection that depends on it fails
(4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleExpired + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: certUnreadable.Good,
	Check: func(p *lint.Pass) {
		stacks := stacked(p)
		certs(p, func(d *schema.Definition, c *credential, u *use) {
			if c.cert == nil {
				return
			}
			day := c.cert.NotAfter.UTC().Format(time.DateOnly)
			switch left := c.cert.NotAfter.Sub(p.At); {
			case left < 0:
				g := p.Reportf(d.NameSpan, "%s expired on %s", d, day)
				if issuer := covered(p, stacks, c.cert, u); issuer != nil {
					g.Severity = schema.Info
					g.Message += ": it can be left out, since its issuer " + schema.QuoteName(issuer.Name) + " is trusted as well"
				}
			case left < p.CertWarn:
				g := p.Reportf(d.NameSpan, "%s expires on %s, in %d days", d, day, int(left.Hours()/24))
				if covered(p, stacks, c.cert, u) != nil {
					g.Severity = schema.Info
				}
			}
		})
	},
}

// covered returns the issuer of a certificate if every trust store that holds
// the certificate holds its issuer, too, and nothing else needs it.
func covered(p *lint.Pass, stacks map[*schema.Definition][]*schema.Definition, cert *x509.Certificate, u *use) *schema.Definition {
	if u.cert != nil || selfIssued(cert) {
		return nil
	}
	var found *schema.Definition
	for _, s := range u.stores {
		in := false
		for _, d := range stacks[s] {
			if c := credentialOf(p, d); c != nil && c.cert != nil && issued(c.cert, cert) &&
				!p.At.Before(c.cert.NotBefore) && !p.At.After(c.cert.NotAfter) {
				found, in = d, true
			}
		}
		if !in {
			return nil
		}
	}
	return found
}
