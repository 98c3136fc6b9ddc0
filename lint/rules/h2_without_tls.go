package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var h2WithoutTLS = &lint.Rule{
	Name:     "h2-without-tls",
	Severity: schema.Info,
	Summary:  "an h2 streamtype has no TLS, so lws uses HTTP/1.1",
	Why: `Readers of the policy expect HTTP/2. The runtime of sspolicy speaks it from the first byte
on (RFC 9113 section 3.3), so it does not reach a server that supports only HTTP/1.1. If
HTTP/1.1 is intended, write "h1".`,
	LWS: `lws negotiates HTTP/2 in the TLS handshake only; without TLS it sends an HTTP/1.1 request
(measured on 5.0.0; 4.1.6 to 4.5.8 have the same code).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h2", "http_method": "GET", "http_url": "index.html" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "index.html", "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if s := d.Get("protocol"); s != nil && d.Protocol() == "h2" && !d.Bool("tls") {
				p.Reportf(s.Member.Value.Span, "%s is h2 without TLS, over which lws speaks HTTP/1.1: say \"h1\", or set \"tls\": true", d)
			}
		}
	},
}
