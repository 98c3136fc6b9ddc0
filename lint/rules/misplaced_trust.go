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
	Summary:  "a client has the certificate of a server, or a server a trust store",
	Why: `A client needs tls_trust_store, a server server_cert and server_key. lws stores both in
one place, and confuses them. It is a warning where that has no effect.`,
	LWS: `A client with server_cert crashes lws when the policy is set. A TLS server whose
certificate is a trust store crashes lws when the server is created. A tls_trust_store after
server_cert replaces it (4.1.6 to 5.0.0).`,
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
					d = p.Reportf(set.Member.Name.Span, "%s is not a server: lws uses its server_cert as a trust store, and crashes", s)
				case name == "server_key" && !server:
					d = p.Reportf(set.Member.Name.Span, "%s is not a server and does not use server_key", s)
					d.Severity = schema.Warning
				case name == "tls_trust_store" && server:
					later := func(o *schema.Setting) bool { return o.Member.Key == "server_cert" }
					switch {
					case !s.Bool("tls") || slices.ContainsFunc(s.Settings[i:], later):
						d = p.Reportf(set.Member.Name.Span, "%s is a server and does not use a trust store", s)
						d.Severity = schema.Warning
					case slices.ContainsFunc(s.Settings[:i], later):
						d = p.Reportf(set.Member.Name.Span, "%s is a server: lws uses its trust store as its certificate", s)
					default:
						d = p.Reportf(set.Member.Name.Span, "%s is a server: lws uses its trust store as its certificate, and crashes", s)
					}
				default:
					continue
				}
				if members := s.Value.Members(); i < len(members) && members[i] == set.Member {
					d.Fixes = []schema.Fix{{Message: "remove " + set.Key.Name, Edits: schema.RemoveMember(members, i)}}
				}
			}
		}
	},
}
