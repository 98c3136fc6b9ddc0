package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingURL = &lint.Rule{
	Name:       "missing-url",
	ParserOnly: true,
	Severity:   schema.Error,
	Fixes:      lint.SafeFix,
	Summary:    "a streamtype has no http_url, which lws needs",
	Why: `For the path "/", write "http_url": "". Compiled tables have it. Over ws, lws requests
"/" as // (4.3.10 and 5.0.0).`,
	LWS: `On ws, lws asks for the subprotocol lws-secstream-ws instead of ws_subprotocol (4.1.6 to
5.0.0). 4.1.6 and 4.2.2 request the path (null), and on h2 no path.`,
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
				g = p.Reportf(d.NameSpan, "%s has no http_url: lws does not request its ws_subprotocol; write \"http_url\": \"\"", d)
			case protocol == "ws":
				g = p.Reportf(d.NameSpan, "%s has no http_url: lws requests the subprotocol lws-secstream-ws; write \"http_url\": \"\"", d)
			case http(protocol) && old != "":
				g = p.Reportf(d.NameSpan, "%s has no http_url: lws %s requests no valid path; write \"http_url\": \"\"", d, old)
			default:
				continue
			}
			if s := d.Get("protocol"); s != nil {
				insert(g, s.Member, `"http_url": ""`)
			}
		}
	},
}
