package lint

import (
	"crypto"

	"github.com/secure-streams/sspolicy/schema"
)

var keyMismatch = &Rule{
	Name:     "key-mismatch",
	Severity: schema.Error,
	Summary:  "a server's private key is not that of its certificate",
	Why:      `One of the two has been replaced without the other.`,
	LWS: `4.1.6 to 4.5.8 do not create the server. 5.0.0 creates it without a word, and it
refuses every handshake.`,
	Bad: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "key": "` + exampleKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	Good: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "key": "` + exampleServerKey + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "tls": true,
                  "server_cert": "identity", "server_key": "key" } } ] }`,
	check: func(p *pass) {
		for _, s := range p.streams() {
			if key := s.Get("server_key"); key != nil && !p.fits(s) {
				d := p.report(key.Member.Value.Span, "the key %s is not that of certificate %s",
					schema.QuoteName(s.Text("server_key")), schema.QuoteName(s.Text("server_cert")))
				d.Related = []schema.Related{{Span: s.Get("server_cert").Member.Value.Span, Message: "the certificate"}}
			}
		}
	},
}

// fits reports whether the key of a server is that of its certificate, as far
// as the two can be read.
func (p *pass) fits(server *schema.Definition) bool {
	var cert, key *credential
	taken := p.resolve().taken
	for _, r := range p.servers()[server] {
		if d := taken[r]; d != nil {
			if r.Key.Name == "server_cert" {
				cert = p.credential(d)
			} else {
				key = p.credential(d)
			}
		}
	}
	if cert == nil || key == nil || cert.cert == nil || key.key == nil {
		return true
	}
	public, ok := cert.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return !ok || public.Equal(key.key)
}
