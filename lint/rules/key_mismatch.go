package rules

import (
	"crypto"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var keyMismatch = &lint.Rule{
	Name:     "key-mismatch",
	Severity: schema.Error,
	Summary:  "the private key of a server does not belong to its certificate",
	Why:      `Probably one of the two was replaced without the other.`,
	LWS: `4.1.6 to 4.5.8 do not create the server. 5.0.0 creates it without an error, and it refuses
every handshake.`,
	Bad: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "key": "` + exampleKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	Good: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "key": "` + exampleServerKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, s := range streams(p) {
			if key := s.Get("server_key"); key != nil && !fits(p, s) {
				d := p.Reportf(key.Member.Value.Span, "the key %s does not belong to certificate %s",
					schema.QuoteName(s.Text("server_key")), schema.QuoteName(s.Text("server_cert")))
				d.Related = []schema.Related{{Span: s.Get("server_cert").Member.Value.Span, Message: "the certificate"}}
			}
		}
	},
}

// fits reports whether the key of a server is that of its certificate, as far
// as the two can be read.
func fits(p *lint.Pass, server *schema.Definition) bool {
	var cert, key *credential
	defs := resolution(p).Definition
	for _, r := range servers(p)[server] {
		if d := defs[r]; d != nil {
			if r.Key.Name == "server_cert" {
				cert = credentialOf(p, d)
			} else {
				key = credentialOf(p, d)
			}
		}
	}
	if cert == nil || key == nil || cert.cert == nil || key.key == nil {
		return true
	}
	public, ok := cert.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return !ok || public.Equal(key.key)
}
