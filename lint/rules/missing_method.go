package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var missingMethod = &lint.Rule{
	Name:     "missing-method",
	Severity: schema.Error,
	Summary:  "an http streamtype has no http_method",
	Why:      `There is no default: write "http_method": "GET".`,
	LWS: `On h1 lws requests an upgrade to websocket, which the server refuses or ignores (4.1.6 to
5.0.0). On h2, 5.0.0 sends CONNECT for websocket, and 4.1.6 to 4.5.8 send GET.`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_url": "index.html" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "index.html" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			protocol := d.Protocol()
			if protocol != "h1" && protocol != "h2" || !lacks(d, "http_method") || strings.HasPrefix(d.Text("endpoint"), "file://") ||
				d.Get("mqtt_topic") != nil { // a shared-storage
				continue
			}
			if s := d.Get("protocol"); s != nil && s.Key.Replacement(s.Member.Value.Text())["http_method"] != nil {
				continue // a legacy-form, which brings the method
			}
			switch with := p.Versions(since(5, 0)); {
			case protocol == "h1":
				p.Reportf(d.NameSpan, "%s has no http_method: lws requests a websocket instead", d)
			case with != "":
				p.Reportf(d.NameSpan, "%s has no http_method: lws %s requests a websocket instead", d, with)
			}
		}
	},
}
