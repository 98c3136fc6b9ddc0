package rules

import (
	"slices"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var misplacedTrust = &lint.Rule{
	Name:     "misplaced-trust",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "a client has a server's certificate, or a server a trust store",
	Why: `A client trusts by tls_trust_store, and a server shows server_cert with server_key.
lws keeps the two in one place, and takes the one for the other. It is only a
warning where nothing comes of it.`,
	LWS: `A client with server_cert crashes lws when the policy comes into force, and a TLS
server whose certificate is a trust store when it is created. After server_cert,
tls_trust_store takes its place (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "certs": [ { "identity": "` + exampleServer + `" } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "server_cert": "identity", "protocol": "h1",
                  "http_method": "GET", "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: certUnreadable.Good,
	Check: func(p *lint.Pass) {
		for _, s := range streams(p) {
			if unclear(s) {
				continue
			}
			server := s.Bool("server")
			for i, set := range s.Settings {
				if set.Key == nil {
					continue
				}
				var d *schema.Diagnostic
				switch name := set.Key.Name; {
				case name == "server_cert" && !server:
					d = p.Reportf(set.Member.Name.Span, "%s is no server: lws takes its server_cert for a trust store, and crashes", s)
				case name == "server_key" && !server:
					d = p.Reportf(set.Member.Name.Span, "%s is no server, and has no use for server_key", s)
					d.Severity = schema.Warning
				case name == "tls_trust_store" && server:
					later := func(o *schema.Setting) bool { return o.Member.Key == "server_cert" }
					switch {
					case !s.Bool("tls") || slices.ContainsFunc(s.Settings[i:], later):
						d = p.Reportf(set.Member.Name.Span, "%s is a server, and has no use for a trust store", s)
						d.Severity = schema.Warning
					case slices.ContainsFunc(s.Settings[:i], later):
						d = p.Reportf(set.Member.Name.Span, "%s is a server: lws takes its trust store for its certificate", s)
					default:
						d = p.Reportf(set.Member.Name.Span, "%s is a server: lws takes its trust store for its certificate, and crashes", s)
					}
				default:
					continue
				}
				if members := s.Value.Members(); i < len(members) && members[i] == set.Member {
					d.Fixes = []schema.Fix{{Message: "remove " + set.Key.Name, Edits: removal(members, i)}}
				}
			}
		}
	},
}
