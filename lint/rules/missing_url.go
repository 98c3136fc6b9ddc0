package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingURL = &lint.Rule{
	Name:     "missing-url",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "a streamtype has no http_url where lws needs one",
	Why:      `For the path "/", write "http_url": "".`,
	LWS: `On ws, lws asks for a subprotocol of its own, lws-secstream-ws, in the place of
ws_subprotocol (4.1.6 to 5.0.0). 4.1.6 and 4.2.2 ask for the path (null), on h2 for none.`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "ws_subprotocol": "chat" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "ws_subprotocol": "chat", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if !lacks(d, "http_url") || d.Get("mqtt_subscribe") != nil || strings.HasPrefix(d.Text("endpoint"), "file://") {
				continue
			}
			protocol, old := d.Protocol(), p.Versions(before(4, 3))
			var g *schema.Diagnostic
			switch {
			case protocol == "ws" && d.Get("ws_subprotocol") != nil:
				g = p.Reportf(d.NameSpan, "%s has no http_url: lws does not ask for its ws_subprotocol then; write \"http_url\": \"\"", d)
			case protocol == "ws":
				g = p.Reportf(d.NameSpan, "%s has no http_url: lws asks for the subprotocol lws-secstream-ws then; write \"http_url\": \"\"", d)
			case http(protocol) && old != "":
				g = p.Reportf(d.NameSpan, "%s has no http_url: lws %s asks for no valid path then; write \"http_url\": \"\"", d, old)
			default:
				continue
			}
			if s := d.Get("protocol"); s != nil {
				insert(g, s.Member, `"http_url": ""`)
			}
		}
	},
}
