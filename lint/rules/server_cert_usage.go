package rules

import (
	"crypto/x509"
	"slices"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var serverCertUsage = &lint.Rule{
	Name:     "server-cert-usage",
	Severity: schema.Warning,
	Summary:  "the certificate of a server names no host, or is not for servers",
	Why: `Browsers, Go and current versions of curl compare the name of the host with the subject
alternative names of the certificate, and ignore its common name. Clients refuse a certificate
whose extended key usage does not include servers.`,
	LWS: `lws sends the certificate unchecked. Its clients on OpenSSL fall back to the common
name.`,
	Bad: `{ "certs": [ { "identity": "` + exampleNameless + `" }, { "key": "` + exampleNamelessKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	Good: serverChain.Good,
	Check: func(p *lint.Pass) {
		serverCerts(p, func(d *schema.Definition, cert *x509.Certificate) {
			if len(cert.DNSNames)+len(cert.IPAddresses) == 0 {
				p.Reportf(d.NameSpan, "%s has no subject alternative name with a host: browsers and Go refuse the server", d)
			}
			usable := func(u x509.ExtKeyUsage) bool {
				return u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny
			}
			if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 && !slices.ContainsFunc(cert.ExtKeyUsage, usable) {
				p.Reportf(d.NameSpan, "%s is not for servers: its extended key usage lacks serverAuth", d)
			}
		})
	},
}
