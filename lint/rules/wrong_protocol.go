package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var wrongProtocol = &lint.Rule{
	Name:     "wrong-protocol",
	Severity: schema.Info,
	Summary:  "a key means nothing to the protocol of its streamtype",
	Why: `It does no harm, but what it asks for does not happen. Keys of mqtt on http, and of
http on mqtt, are another matter: see shared-storage.`,
	LWS:  `lws stores the value (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "long_poll": true } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			protocol := d.Protocol()
			for _, s := range d.Settings {
				if s.Key == nil || s.Key.Serves(protocol) || s.Member.Value.Raw == "false" || s.Key.Name == "http_method" && protocol == "ws" ||
					s.Key.Name == "server" {
					continue
				}
				mqtt := strings.HasPrefix(s.Key.Member, "u.mqtt.")
				if mqtt && protocol != "raw" || protocol == "mqtt" && strings.HasPrefix(s.Key.Member, "u.http.") {
					continue // a shared-storage
				}
				p.Reportf(s.Member.Name.Span, "%s means nothing to %s: it is for %s", s.Key.Name, protocol, strings.Join(s.Key.Protocols, ", "))
			}
		}
	},
}
