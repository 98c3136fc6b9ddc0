package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var unwatchedConnection = &lint.Rule{
	Name:     "unwatched-connection",
	Severity: schema.Info,
	Summary:  "a nailed_up stream never notices that its peer has disappeared",
	Why: `When a router drops the connection, or the peer loses its power, no packet arrives. A
stream that mostly waits for the peer then waits forever. Set svalidping and svalidhup in its
backoff scheme, for example to 60 and 70, to probe and close the connection.`,
	LWS: `lws probes and closes a connection after the svalidping and svalidhup of the backoff
scheme, and never if svalidhup is 0 or missing there. For a streamtype without retry it uses the
defaults of the context (5.0.0, lib/core/context.c: 40 and 50 s).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 65535, "jitterpc": 20 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "ws", "http_url": "", "nailed_up": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ], "conceal": 65535, "jitterpc": 20, "svalidping": 60, "svalidhup": 70 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "ws", "http_url": "", "nailed_up": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, r := range p.Policy.References {
			d, scheme := r.From, intended(r)
			if r.Key.Name != "retry" || scheme == nil || unclear(d) || d.Bool("server") || d.Bool("local_sink") || !d.Bool("nailed_up") {
				continue
			}
			if n, ok := number(scheme, "svalidhup"); ok && n > 0 || !lacks(scheme, "svalidhup") && !ok {
				continue
			}
			switch d.Protocol() {
			case "mqtt":
				if n, _ := number(d, "mqtt_keep_alive"); n > 0 {
					continue
				}
			case "ws", "raw":
			default:
				continue
			}
			g := p.Reportf(r.Span, "nothing notices that the peer of %s is gone: %s has no svalidhup", d, scheme)
			g.Related = []schema.Related{{Span: scheme.NameSpan, Message: "the backoff scheme"}}
		}
	},
}
