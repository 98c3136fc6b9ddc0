package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var systemStreamtype = &lint.Rule{
	Name:     "system-streamtype",
	Severity: schema.Warning,
	Summary:  "the name is almost that of a streamtype of lws itself",
	Why: `lws looks up captive_portal_detect, fetch_policy and api_amazon_com_auth by their exact
names; they are optional. _lws_smd is built in; a policy cannot define it.`,
	LWS: `Without captive_portal_detect or fetch_policy, lws does not detect portals or fetch a policy
(5.0.0).`,
	Bad:  `{ "s": [ { "fetch-policy": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "policy.json" } } ] }`,
	Good: `{ "s": [ { "fetch_policy": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "policy.json" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			if d.Name == "_lws_smd" {
				p.Reportf(d.NameSpan, "_lws_smd is built in: lws does not look for it in the policy")
			}
			for _, name := range []string{"captive_portal_detect", "fetch_policy", "api_amazon_com_auth"} {
				if len(p.Policy.Lookup(schema.Streams, name)) == 0 && nearly(d.Name, name) {
					p.Reportf(d.NameSpan, "lws looks for a streamtype called %s", name)
				}
			}
		}
	},
}

// nearly reports whether two names differ by the case of letters, by one
// letter, or by two that are swapped.
func nearly(a, b string) bool {
	a = strings.Map(func(r rune) rune {
		if strings.ContainsRune("-. ", r) {
			return '_'
		}
		return r
	}, strings.ToLower(a))
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	a, b = a[start:], b[start:]
	for a != "" && b != "" && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a) <= 1 && len(b) <= 1 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}
