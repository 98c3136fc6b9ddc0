package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var trustedServerCert = &lint.Rule{
	Name:     "trusted-server-cert",
	Severity: schema.Info,
	Summary:  "clients trust the certificate of a server in the same policy",
	Why: `This is normal in a test with a self-signed server. In production the clients stop
trusting the server when it gets a new certificate; and if the certificate is of a CA, the key of
the CA is on the server.`,
	LWS: `It works if the trust store precedes the server; after it, lws does not find the
certificate (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "identity": "` + exampleServer + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "identity" ] } ],
  "s": [ { "a": { "endpoint": "localhost", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } },
         { "b": { "server": true, "protocol": "raw", "port": 7681, "server_cert": "identity" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleRoot + `" }, { "identity": "` + exampleServer + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "localhost", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } },
         { "b": { "server": true, "protocol": "raw", "port": 7681, "server_cert": "identity" } } ] }`,
	Check: func(p *lint.Pass) {
		trusted := map[string]*schema.Definition{} // by DER
		certs(p, func(d *schema.Definition, c *credential, u *use) {
			if len(u.stores) > 0 && c.cert != nil && trusted[string(c.der)] == nil {
				trusted[string(c.der)] = d
			}
		})
		uses := uses(p)
		certs(p, func(d *schema.Definition, c *credential, u *use) {
			same := trusted[string(c.der)]
			if u.cert == nil || same == nil {
				return
			}
			store := uses[same].stores[0]
			g := p.Reportf(u.cert.Get("server_cert").Member.Value.Span,
				"%s, which %s shows, is also trusted by the clients of %s", d, u.cert, store)
			g.Related = []schema.Related{{Span: store.NameSpan, Message: "the trust store"}}
		})
	},
}
