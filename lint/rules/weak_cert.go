package rules

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var weakCert = &lint.Rule{
	Name:     "weak-cert",
	Severity: schema.Warning,
	Summary:  "a certificate has a weak key or signature",
	Why: `An RSA key needs at least 2048 bits, and an elliptic curve 224. MD5 and SHA-1 do not
protect a signature. The signature of a root does not matter, because it is not checked.`,
	LWS: `lws leaves it to its TLS library. OpenSSL 3.0 refuses a signature with SHA-1 and, at
security level 2, which Debian sets, an RSA key of 1024 bits.`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleWeak + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: certUnreadable.Good,
	Check: func(p *lint.Pass) {
		certs(p, func(d *schema.Definition, c *credential, _ *use) {
			if c.cert == nil {
				return
			}
			if key := weakKey(c.cert); key != "" {
				p.Reportf(d.NameSpan, "the key of %s is weak: %s", d, key)
			}
			switch c.cert.SignatureAlgorithm {
			case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
				if !selfIssued(c.cert) {
					p.Reportf(d.NameSpan, "the signature of %s is weak: %s", d, c.cert.SignatureAlgorithm)
				}
			}
		})
	},
}

func weakKey(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 {
			return fmt.Sprintf("RSA of %d bits", n)
		}
	case *ecdsa.PublicKey:
		if n := k.Curve.Params().BitSize; n < 224 {
			return fmt.Sprintf("an elliptic curve of %d bits", n)
		}
	}
	return ""
}
