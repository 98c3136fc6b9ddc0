package rules

import (
	"maps"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var mergedTrustStores = &lint.Rule{
	Name:     "merged-trust-stores",
	Severity: schema.Warning,
	Fixes:    lint.UnsafeFix,
	Summary:  "two trust stores begin with the same certificate",
	Why: `The streams of each store then also trust the certificates of the other. The order
within a store has no other meaning, so put a certificate first that is first in no other store.`,
	LWS: `Built with OpenSSL, lws makes one TLS context of all trust stores with the same first
certificate, and adds the further certificates of each (measured on 4.1.6, 4.3.10 and 5.0.0; 4.2 to 4.5 have
the same code). With mbedTLS each store has its own.`,
	Bad:  mergedExample(`"root", "other"`),
	Good: mergedExample(`"other", "root"`),
	Check: func(p *lint.Pass) {
		stacks := map[*schema.Definition][]*schema.Reference{}
		var stores []*schema.Definition // used by clients, in order
		known := map[*schema.Definition]map[string]bool{}
		defs, uses := resolution(p).Definition, uses(p)
		for _, r := range p.Policy.References {
			if r.Key.Name != "stack" || defs[r] == nil || uses[defs[r]] == nil {
				continue
			}
			c := credentialOf(p, defs[r])
			if c == nil {
				continue
			}
			if known[r.From] == nil {
				known[r.From] = map[string]bool{}
				stores = append(stores, r.From)
			}
			known[r.From][string(c.der)] = true
			stacks[r.From] = append(stacks[r.From], r)
		}
		der := func(r *schema.Reference) string { return string(credentialOf(p, defs[r]).der) }
		first := map[string]*schema.Definition{} // store by its first certificate
		for _, s := range stores {
			if start := der(stacks[s][0]); first[start] == nil {
				first[start] = s
			}
		}
		for _, s := range stores {
			start := stacks[s][0]
			other := first[der(start)]
			if other == s || maps.Equal(known[s], known[other]) {
				continue
			}
			g := p.Reportf(start.Span, "%s begins with the same certificate as %s: built with OpenSSL, lws lets the streams of both trust the certificates of both",
				s, other)
			g.Related = []schema.Related{{Span: stacks[other][0].Span, Message: other.String() + " begins here"}}
			// Either store can begin with another of its certificates.
			for _, stack := range [][]*schema.Reference{stacks[s], stacks[other]} {
				for _, r := range stack {
					if first[der(r)] == nil && g.Fixes == nil {
						g.Fixes = []schema.Fix{{Message: "put " + schema.QuoteName(r.Name) + " first", Edits: []schema.Edit{
							{Span: stack[0].Span, NewText: r.Span.Text()}, {Span: r.Span, NewText: stack[0].Span.Text()},
						}}}
					}
				}
			}
		}
	},
}

// mergedExample returns a policy with two trust stores, the second with this stack.
func mergedExample(stack string) string {
	return `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "root": "` + exampleRoot + `" }, { "other": "` + exampleRoot2 + `" } ],
  "trust_stores": [ { "name": "one", "stack": [ "root" ] }, { "name": "both", "stack": [ ` + stack + ` ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "one", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } },
         { "b": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "both", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`
}
