package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var wrongRole = &lint.Rule{
	Name:     "wrong-role",
	Severity: schema.Warning,
	Fixes:    lint.UnsafeFix,
	Summary:  "a key of a client is in a server, or the reverse",
	Why: `A server waits for connections: it has no method and no retry, and does not connect.
There are no mqtt or h3 servers.`,
	LWS: `lws stores the value, and creates an mqtt server without an error (4.2.2 to 5.0.0). A
server of 4.4 to 5.0 omits content-length if http_no_content_length is set.`,
	Bad:  `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681, "nailed_up": true } } ] }`,
	Good: `{ "s": [ { "a": { "server": true, "protocol": "raw", "port": 7681 } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			role, other := "client", "server"
			if unclear(d) {
				continue
			} else if d.Bool("server") {
				role, other = other, role
			} else if d.Bool("local_sink") {
				continue
			}
			for _, s := range d.Settings {
				switch {
				case s.Key == nil || s.Member.Value.Raw() == "false" || s.Key.Name == "plugins" || s.Key.Name == "options":
				case s.Key.Name == "server" && (d.Protocol() == "mqtt" || d.Protocol() == "h3"):
					p.Reportf(s.Member.Name.Span, "lws has no server for %s", d.Protocol()).Severity = schema.Error
				case s.Key.Role != other, s.Key.Name == "http_no_content_length" && p.Versions(since(4, 4)) != "":
				case s.Key.Member == "trust.store", s.Key.Ref == schema.Certs: // a misplaced-trust
				default:
					g := p.Reportf(s.Member.Name.Span, "%s is for a %s, and %s is a %s", s.Key.Name, other, d, role)
					remove(g, d, s)
				}
			}
		}
	},
}
