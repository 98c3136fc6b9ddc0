package rules

import (
	"crypto/x509"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var serverChain = &lint.Rule{
	Name:     "server-chain",
	Severity: schema.Info,
	Summary:  "a server sends its certificate without that of the issuer",
	Why: `A policy contains one certificate for a server. A client that trusts only the root above
the issuer has no path to it and refuses the server. Let the clients trust the issuer, or use a
certificate that a root has issued. A program of the runtime can send the chain: its credentials
replace the certificate of the policy.`,
	LWS: `lws sends only the certificate of server_cert (4.1.6 to 5.0.0).`,
	Bad: `{ "certs": [ { "identity": "` + exampleLeaf + `" }, { "key": "` + exampleKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	Good: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "key": "` + exampleServerKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	Check: func(p *lint.Pass) {
		serverCerts(p, func(d *schema.Definition, cert *x509.Certificate) {
			if selfIssued(cert) {
				return
			}
			for _, other := range p.Policy.Section(schema.Certs) {
				if c := credentialOf(p, other); c != nil && c.cert != nil && selfIssued(c.cert) && issued(c.cert, cert) {
					return // a root, which is not sent
				}
			}
			p.Reportf(d.NameSpan, "%s is sent alone: a client has to trust its issuer %s itself", d, schema.QuoteName(cert.Issuer.String()))
		})
	},
}

// serverCerts calls f for each certificate that a server with TLS shows.
func serverCerts(p *lint.Pass, f func(*schema.Definition, *x509.Certificate)) {
	certs(p, func(d *schema.Definition, c *credential, u *use) {
		if c.cert != nil && u.cert != nil && u.cert.Bool("tls") {
			f(d, c.cert)
		}
	})
}
