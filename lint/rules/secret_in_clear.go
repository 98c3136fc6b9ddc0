package rules

import (
	"net/netip"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var secretInClear = &lint.Rule{
	Name:     "secret-in-clear",
	Severity: schema.Warning,
	Summary:  "a token or signature is sent without TLS",
	Why: `Anybody on the network path can read and use the token, or repeat the signed request.
Set "tls": true, or remove the credential.`,
	LWS: `lws sends the header of http_auth_header, and the signature of sigv4, with and without
TLS (4.1.6 to 5.0.0, ss-h1.c).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 8080, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "http_auth_header": "authorization:", "http_auth_preamble": "Bearer " } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 8443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "http_auth_header": "authorization:", "http_auth_preamble": "Bearer " } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if protocol := d.Protocol(); !http(protocol) && protocol != "ws" || encrypted(d) || !beyondLoopback(d) {
				continue
			}
			for _, key := range []string{"http_auth_header", "use_auth"} {
				if s := d.Get(key); s != nil && s.Member.Value.Text() != "" {
					p.Reportf(s.Member.Name.Span, "%s sends its credentials without TLS: set \"tls\": true", d)
					break
				}
			}
		}
	},
}

// encrypted reports whether a client has TLS: a scheme may turn it off.
func encrypted(d *schema.Definition) bool {
	switch parseEndpoint(d.Text("endpoint")).scheme {
	case "http", "ws", "mqtt":
		return false
	}
	return d.Bool("tls")
}

// beyondLoopback reports whether a client connects to another machine. It returns false for
// a host that depends on metadata.
func beyondLoopback(d *schema.Definition) bool {
	host := d.Text("endpoint")
	if e := parseEndpoint(host); e.overrides {
		if strings.Contains(host, "${") {
			return false
		}
		host = e.host
	}
	if host == "" || strings.HasPrefix(host, "+") || strings.HasPrefix(host, "file://") || strings.HasPrefix(host, "${") ||
		host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return false
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil || !a.IsLoopback()
}
