package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var sharedServerCert = &lint.Rule{
	Name:       "shared-server-cert",
	ParserOnly: true,
	Severity:   schema.Error,
	Summary:    "a certificate of a server is used again",
	Why: `The first server that names a certificate or key removes it from the list, so later
references do not find it. Define the certificate again with another name, or bind the servers to
one vhost of the program: "endpoint": "!vhost".`,
	LWS: `lws refuses the policy because the certificate is unknown. If the context is created with
it, 4.2.2 to 5.0.0 crash (4.1.6 to 5.0.0).`,
	Bad: `{ "certs": [ { "identity": "` + exampleServer + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "server_cert": "identity" } },
         { "b": { "server": true, "protocol": "raw", "port": 7682, "server_cert": "identity" } } ] }`,
	Good: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "identity-b": "` + exampleServer + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "server_cert": "identity" } },
         { "b": { "server": true, "protocol": "raw", "port": 7682, "server_cert": "identity-b" } } ] }`,
	Firm: true,
	Check: func(p *lint.Pass) {
		lost := resolution(p).Conflict
		for _, r := range p.Policy.References {
			if owner := lost[r]; owner != nil {
				d := p.Reportf(r.Span, "lws does not find %s here: %s has used it", r.Target, owner.From)
				d.Related = []schema.Related{{Span: owner.Span, Message: "it is taken here"}}
			}
		}
	},
}
