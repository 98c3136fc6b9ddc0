package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var h3Transport = &lint.Rule{
	Name:     "h3-transport",
	Severity: schema.Error,
	Summary:  "h3 without TLS, through a SOCKS5 proxy or over a unix socket",
	Why: `HTTP/3 runs over QUIC, which is UDP and always encrypted (RFC 9114). sspolicy run refuses
such a streamtype.`,
	LWS: `Without tls lws tries no QUIC connection (5.0.0, lib/core-net/client/connect2.c). It
connects to a SOCKS5 proxy over TCP.`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 8080, "protocol": "h3", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 8443, "tls": true, "protocol": "h3", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		var proxy *schema.Setting
		for _, s := range p.Policy.Settings {
			if s.Key != nil && s.Key.Name == "via-socks5" && s.Member.Value.Text() != "" {
				proxy = s
			}
		}
		for _, d := range clients(p) {
			if d.Protocol() != "h3" || strings.HasPrefix(d.Text("endpoint"), "file://") {
				continue
			}
			own := proxy
			if s := d.Get("via-socks5"); s != nil {
				own = s
			}
			if !d.Bool("tls") && lacks(d, "tls") {
				p.Reportf(d.Get("protocol").Member.Value.Span, "h3 is always encrypted: set \"tls\": true")
			} else if !d.Bool("tls") {
				p.Reportf(at(d, "tls"), "h3 is always encrypted: set \"tls\": true")
			}
			if own != nil {
				g := p.Reportf(d.Get("protocol").Member.Value.Span, "h3 does not run through the SOCKS5 proxy of via-socks5")
				g.Related = []schema.Related{{Span: own.Member.Name.Span, Message: "the proxy"}}
			}
			if strings.HasPrefix(d.Text("endpoint"), "+") {
				p.Reportf(at(d, "endpoint"), "h3 does not run over a unix socket")
			}
		}
	},
}
