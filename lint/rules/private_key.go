package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var privateKeyRule = &lint.Rule{
	Name:     "private-key",
	Severity: schema.Warning,
	Summary:  "the policy contains a private key",
	Why: `Readers of the policy can impersonate the owner of the key. A server that lws creates
itself needs its key in the policy, so for servers this is only an info. Treat the policy as a
secret, or let the program create the vhost with its key, and bind the server to it with
"endpoint": "!vhost".`,
	LWS:  `lws keeps the key of a server in memory until the context is destroyed (4.1.6 to 5.0.0).`,
	Bad:  `{ "certs": [ { "own": "` + exampleKey + `" } ] }`,
	Good: `{ "s": [ { "a": { "server": true, "protocol": "raw", "endpoint": "!secure", "port": 7681, "tls": true } } ] }`,
	Check: func(p *lint.Pass) {
		uses := uses(p)
		for _, d := range p.Policy.Section(schema.Certs) {
			c := credentialOf(p, d)
			if c == nil || !c.isKey {
				continue
			}
			switch u := uses[d]; {
			case u == nil:
				p.Reportf(d.NameSpan, "%s is a private key, and no server uses it: remove it", d)
			case u.key != nil && fits(p, u.key):
				g := p.Reportf(d.NameSpan, "%s is the private key of %s: treat the policy as a secret", d, u.key)
				g.Severity = schema.Info
			}
			// A key with another use, or with a certificate that it does not match, has its
			// own error.
		}
	},
}
