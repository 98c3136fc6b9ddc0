package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var sharedServerCert = &lint.Rule{
	Name:     "shared-server-cert",
	Severity: schema.Error,
	Summary:  "a certificate that a server has is used once more",
	Why: `The first server that names a certificate or key takes it away, so that nothing
after it finds it. Give the certificate a second time, by another name, or bind
the servers to one vhost of the program: "endpoint": "!vhost".`,
	LWS: `The policy is refused, because the certificate is unknown. If it is the one that
the context is created with, 4.2.2 to 5.0.0 crash (4.1.6 to 5.0.0).`,
	Bad: `{ "certs": [ { "identity": "` + exampleServer + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "server_cert": "identity" } },
         { "b": { "server": true, "protocol": "raw", "port": 7682, "server_cert": "identity" } } ] }`,
	Good: `{ "certs": [ { "identity": "` + exampleServer + `" }, { "identity-b": "` + exampleServer + `" } ],
  "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "server_cert": "identity" } },
         { "b": { "server": true, "protocol": "raw", "port": 7682, "server_cert": "identity-b" } } ] }`,
	Firm: true,
	Check: func(p *lint.Pass) {
		lost := resolution(p).Lost
		for _, r := range p.Policy.References {
			if given := lost[r]; given != nil {
				d := p.Reportf(r.Span, "lws does not find %s here: %s has taken it away", r.Target, given.From)
				d.Related = []schema.Related{{Span: given.Span, Message: "it is taken here"}}
			}
		}
	},
}
