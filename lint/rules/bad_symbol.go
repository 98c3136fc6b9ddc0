package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var badSymbol = &lint.Rule{
	Name:     "bad-symbol",
	Severity: schema.Error,
	Summary:  `a "$" in a string does not have its apparent effect`,
	Why: `lws replaces ${name} by the metadata of that name in endpoint, http_url, and the topics
and messages of MQTT. The name has 1 to 31 bytes. There is no escape; a "$" before any character
except "{" and "$" stands for itself.`,
	LWS: `lws keeps "ab" of "ab${cd" and of "ab$", and makes "a$$$b" of "a$$b". A name of 32 bytes is
treated as undeclared (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "devices/${id/state", "metadata": [ { "id": "x-device-id:" } ],
                  "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "devices/${id}/state", "metadata": [ { "id": "x-device-id:" } ],
                  "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, s := range streams(p) {
			eachSymbol(s, func(k *schema.Key, v *schema.Value, sym symbol) {
				if sym.problem == "" {
					return
				}
				g := p.Reportf(inside(v, sym.start, sym.end), "%s: %s", k.Name, sym.problem)
				open, replacement := strings.TrimPrefix(v.Text()[sym.start:sym.end], "${"), ""
				for _, m := range metadata(s) { // the longest item that the rest begins with
					if sym.name == "" && strings.HasPrefix(open, m.Key) && len(m.Key) > len(replacement) {
						replacement = m.Key
					}
				}
				if replacement != "" {
					g.Message += ": did you mean ${" + replacement + "}?"
				}
			})
		}
	},
}
