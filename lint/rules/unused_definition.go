package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unusedDefinition = &lint.Rule{
	Name:     "unused-definition",
	Severity: schema.Info,
	Summary:  "nothing uses a backoff scheme, certificate, trust store or auth scheme",
	Why: `It only uses memory, but an unused certificate suggests that a trust store is
incomplete. The rule ignores a file without streamtypes, whose definitions other files may use.`,
	LWS: `lws keeps it in memory. It frees the DER of a certificate when the policy is set (4.1.6
to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } }, { "patient": { "backoff": [ 60000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		if len(streams(p)) == 0 {
			return
		}
		defs := resolution(p).Definition
		used := map[*schema.Definition]bool{}
		misspelt := map[schema.Section]bool{} // sections with a reference that may be meant for any definition
		for _, r := range p.Policy.References {
			if r.Target == nil && r.Later == nil && defs[r] == nil {
				misspelt[r.Key.Ref] = true
			}
			for _, d := range []*schema.Definition{r.Target, r.Later, defs[r]} {
				used[d] = true
			}
		}
		for _, d := range p.Policy.Definitions {
			if d.Unreadable { // the certificates that it names are meant to be used
				for _, e := range d.Value.Elems() {
					for _, c := range p.Policy.Lookup(schema.Certs, e.Value.Text()) {
						used[c] = true
					}
				}
			}
		}
		for _, d := range p.Policy.Definitions {
			switch d.Section {
			case schema.Retry, schema.Certs, schema.TrustStores, schema.Auth:
				if !used[d] && !misspelt[d.Section] && !d.Unreadable && d.Name != "" && len(p.Policy.Lookup(d.Section, d.Name)) == 1 {
					p.Reportf(d.NameSpan, "nothing uses %s", d)
				}
			}
		}
	},
}
