package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var methodOnWS = &lint.Rule{
	Name:     "method-on-ws",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "a ws streamtype has an http_method",
	Why:      `A websocket handshake always uses GET.`,
	LWS:      `With a method, lws sends a plain HTTP request without an upgrade (4.1.6 to 5.0.0).`,
	Bad:      `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_method": "GET", "http_url": "chat" } } ] }`,
	Good:     `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "chat" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if s := d.Get("http_method"); s != nil && d.Protocol() == "ws" {
				remove(p.Reportf(s.Member.Name.Span, "with http_method lws sends a plain HTTP request instead of a websocket handshake: remove it"), d, s)
			}
		}
	},
}
