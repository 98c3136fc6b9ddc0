package rules

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var tlsPort = &lint.Rule{
	Name:     "tls-port",
	Severity: schema.Warning,
	Summary:  "the port is for TLS and the streamtype has none, or the reverse",
	Why: `By convention, ports 443 (HTTP and WebSocket) and 8883 (MQTT) use TLS, and ports 80 and
1883 do not. A server on such a port does not understand the client.`,
	LWS: `lws uses TLS if tls is set, whatever the port is (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, s := range streams(p) {
			port := s.Get("port")
			endpoint := s.Text("endpoint")
			if port == nil || unclear(s) || s.Bool("server") || s.Bool("local_sink") || s.Protocol() == "raw" ||
				strings.HasPrefix(endpoint, "+") || parseEndpoint(endpoint).overrides {
				continue
			}
			with, without := []string{"443"}, []string{"80"}
			if s.Protocol() == "mqtt" {
				with, without = []string{"443", "8883"}, []string{"80", "1883"}
			}
			v := &port.Member.Value
			switch tls := s.Bool("tls"); {
			case tls && slices.Contains(without, v.Text()):
				p.Reportf(v.Span, "port %s is for connections without TLS, and %s has \"tls\": true", v.Text(), s)
			case !tls && slices.Contains(with, v.Text()) && s.Get("tls_trust_store") == nil:
				p.Reportf(v.Span, "port %s is for TLS, and %s has no \"tls\": true: it is not encrypted", v.Text(), s)
			}
		}
	},
}
