package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var wrongProtocol = &lint.Rule{
	Name:     "wrong-protocol",
	Severity: schema.Info,
	Summary:  "a key has no effect on the protocol of its streamtype",
	Why: `The key has no effect. It is an error if the program would lose data: with
direct_proto_str it sets headers, which no other protocol sends. For keys of mqtt on http, and of
http on mqtt, see shared-storage.`,
	LWS:  `lws stores the value (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "long_poll": true } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			protocol := d.Protocol()
			if s := d.Get("direct_proto_str"); s != nil && d.Bool("direct_proto_str") && d.Bool("local_sink") {
				p.Reportf(s.Member.Name.Span, "direct_proto_str has no effect on a local sink, which has no headers").Severity = schema.Error
				continue
			}
			for _, s := range d.Settings {
				if s.Key == nil || s.Key.Serves(protocol) || s.Member.Value.Raw() == "false" || s.Key.Name == "http_method" && protocol == "ws" ||
					s.Key.Name == "server" || s.Key.Name == "use_auth" || s.Key.Name == "rideshare" { // a wrong-role, a bad-auth, a rideshare-mismatch
					continue
				}
				mqtt := strings.HasPrefix(s.Key.Member, "u.mqtt.")
				if mqtt && protocol != "raw" || protocol == "mqtt" && strings.HasPrefix(s.Key.Member, "u.http.") {
					continue // a shared-storage
				}
				g := p.Reportf(s.Member.Name.Span, "%s has no effect on %s: it is for %s", s.Key.Name, protocol, strings.Join(s.Key.Protocols, ", "))
				if s.Key.Name == "direct_proto_str" && d.Bool("direct_proto_str") {
					g.Severity = schema.Error // the program's value would not be sent
				}
			}
		}
	},
}
