package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var h2WithoutTLS = &lint.Rule{
	Name:     "h2-without-tls",
	Severity: schema.Info,
	Summary:  "an h2 streamtype without TLS, over which lws speaks HTTP/1.1",
	Why: `Who reads the policy expects HTTP/2. The runtime of sspolicy does speak it, from
the first byte on (RFC 9113 section 3.3), and so does not reach a server that
has HTTP/1.1 alone. Say "h1" where that is meant.`,
	LWS: `HTTP/2 is agreed on in the TLS handshake alone; without it the request is one of
HTTP/1.1 (measured on 5.0.0; 4.1.6 to 4.5.8 have the same code).`,
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
