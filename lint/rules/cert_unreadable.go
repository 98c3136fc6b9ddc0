package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var certUnreadable = &lint.Rule{
	Name:     "cert-unreadable",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "an entry of certs is not the certificate or key that it is used as",
	Why: `An entry holds the base64 of one certificate in DER, or of one private key (PKCS #8, PKCS #1
or SEC 1) if a server_key names it. Entries without a use are not checked.`,
	LWS: `lws parses a certificate when it needs it. For one in a trust store that is not a
certificate, 5.0.0 refuses the policy; so do 4.1.6 to 4.5.8 unless it is the first one,
which they skip with a log line. 4.1.6 to 4.5.8 do not create a server with such a
certificate; 5.0.0 creates it, and the server refuses every handshake.`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "MIIFazCCA1OgAwIBAgIRAIIQz7DSQONZRGPgu2OCiwAw" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleRoot + `" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		certs(p, func(d *schema.Definition, c *credential, u *use) {
			trusted := len(u.stores) > 0
			if c.isKey && (trusted || u.cert != nil) {
				user := u.cert
				if trusted {
					user = u.stores[0]
				}
				g := p.Reportf(d.NameSpan, "%s is a private key, and %s uses it as a certificate", d, user)
				if !trusted {
					swap(p, g, user)
				}
				return
			}
			if u.key != nil && !c.isKey {
				what := "not a private key"
				if c.cert != nil {
					what = "a certificate"
				}
				g := p.Reportf(d.NameSpan, "%s is %s, and %s uses it as its private key", d, what, u.key)
				if key := u.key.Get("server_key"); key != nil {
					g.Related = []schema.Related{{Span: key.Member.Value.Span, Message: "it is used here"}}
				}
				return
			}
			if c.err != nil {
				g := p.Reportf(d.NameSpan, "%s cannot be read: %v", d, c.err)
				if c.loose {
					g.Severity = schema.Warning
					g.Message += "; lws may be less strict"
				}
			} else if len(c.rest) > 0 {
				g := p.Reportf(d.NameSpan, "%d bytes follow the certificate in %s: lws ignores them", len(c.rest), d)
				g.Severity = schema.Warning
			}
		})
	},
}

// swap adds the fix for a server whose certificate and key are mixed up.
func swap(p *lint.Pass, g *schema.Diagnostic, server *schema.Definition) {
	cert, key := server.Get("server_cert"), server.Get("server_key")
	if cert == nil || key == nil {
		return
	}
	defs := p.Policy.Lookup(schema.Certs, key.Member.Value.Text())
	if len(defs) != 1 {
		return
	}
	if c := credentialOf(p, defs[0]); c == nil || c.cert == nil {
		return
	}
	edits := []schema.Edit{
		{Span: cert.Member.Value.Span, NewText: key.Member.Value.Raw()},
		{Span: key.Member.Value.Span, NewText: cert.Member.Value.Raw()},
	}
	if edits[0].Span.Start > edits[1].Span.Start {
		edits[0], edits[1] = edits[1], edits[0]
	}
	g.Fixes = []schema.Fix{{Message: "swap server_cert and server_key", Edits: edits}}
}
