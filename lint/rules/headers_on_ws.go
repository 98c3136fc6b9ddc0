package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var headersOnWS = &lint.Rule{
	Name:     "headers-on-ws",
	Severity: schema.Warning,
	Summary:  "a ws streamtype has headers, which lws does not send",
	Why: `lws cannot send headers with a websocket handshake. Put the data into http_url, with
${name} for a metadata item. The runtime of sspolicy sends the headers.`,
	LWS: `The handshake contains neither the headers of metadata nor http_auth_header and similar keys
(4.3.10 and 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "chat?user=${user}",
                  "metadata": [ { "user": "x-user:" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "chat?user=${user}",
                  "metadata": [ { "user": "" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Protocol() != "ws" {
				continue
			}
			for _, s := range d.Settings {
				if s.Key != nil && strings.HasPrefix(s.Key.Member, "u.http.blob_header") {
					p.Reportf(s.Member.Name.Span, "lws does not send the header of %s with a websocket", s.Key.Name)
				}
			}
			list(d, "metadata", func(m *schema.Member) {
				if m.Value.Kind == schema.String && m.Value.Text() != "" {
					p.Reportf(m.Value.Span, "lws does not send the header %s with a websocket", schema.QuoteName(m.Value.Text()))
				}
			})
		}
	},
}
