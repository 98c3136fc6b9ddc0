package rules

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var unknownMethod = &lint.Rule{
	Name:     "unknown-method",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "lws does not support the HTTP method",
	Why:      `Write the method in capitals.`,
	LWS: `On h1, lws connects and sends nothing for a method other than GET, POST, PUT, PATCH, DELETE,
OPTIONS and HEAD, including "get" and "". For the method MQTT it crashes (4.1.6, 4.3.10 and
5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "get", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			s := d.Get("http_method")
			if text := d.Text("http_method"); s != nil && (d.Protocol() == "h2" || d.Protocol() == "h3") && text != "" && (!policy.IsToken(text) || text == "CONNECT") {
				p.Reportf(s.Member.Value.Span, "no request has the method %s", schema.QuoteName(text))
				continue
			}
			if s == nil || d.Protocol() != "h1" || s.Member.Value.Kind != schema.String || slices.Contains(methods, s.Member.Value.Text()) {
				continue
			}
			g := p.Reportf(s.Member.Value.Span, "lws sends nothing for the method %s: it supports %s", schema.QuoteName(s.Member.Value.Text()), strings.Join(methods, ", "))
			if upper := strings.ToUpper(s.Member.Value.Text()); slices.Contains(methods, upper) {
				write(g, &s.Member.Value, upper)
			}
		}
	},
}

var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"}
