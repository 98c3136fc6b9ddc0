package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var endpointOverride = &lint.Rule{
	Name:     "endpoint-override",
	Severity: schema.Warning,
	Fixes:    lint.SafeFix,
	Summary:  "the endpoint is a URL or host:port, and overrides other settings",
	Why: `lws parses an endpoint with a ":" as a URL. The port and path of the URL replace "port"
and "http_url", even if the URL has none. Write only the host. It is a warning because this is a
feature of lws.`,
	LWS: `With the endpoint "example.com:8080" and http_url "x" lws requests "/" from port 8080,
whatever "port" is. It uses "2001" of the IPv6 address 2001:db8::1 as the host, but understands an
address in brackets, with a port after it (4.1.6 to 5.0.0). Without a port and an HTTP scheme, lws
uses "port" up to 4.5; 5.0 connects to port 0.`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com:8443", "port": 8443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 8443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for s, v := range endpoints(p) {
			e := parseEndpoint(v.Text())
			if e.literal {
				host, _, _ := strings.Cut(v.Text(), ":")
				p.Reportf(v.Span, "lws uses %s as the host of this IPv6 address: write it in brackets, with the port after it", schema.QuoteName(host)).Severity = schema.Error
				continue
			}
			if !e.overrides {
				continue
			}
			port, url := s.Get("port"), s.Get("http_url")
			if without := p.Versions(since(5, 0)); e.port == "" && without != "" {
				d := p.Reportf(v.Span, "lws %s takes port 0 with this endpoint, not the port of %s: write the port after the host", without, s)
				if port != nil && e.scheme == "" && e.path == "" && strings.HasSuffix(v.Text(), "]") {
					write(d, v, v.Text()+":"+port.Member.Value.Text())
				}
			}
			samePort := port == nil || e.port == "" || port.Member.Value.Text() == e.port
			lost := url != nil && url.Key.Serves(s.Protocol()) && strings.TrimPrefix(url.Member.Value.Text(), "/") != e.path
			if samePort && !lost {
				continue
			}
			var d *schema.Diagnostic
			what := "host and port"
			if e.scheme != "" {
				what = "a URL"
			}
			switch {
			case samePort:
				d = p.Reportf(v.Span, "the endpoint is %s: lws requests %s, and http_url is not used", what, schema.QuoteName("/"+e.path))
			case !lost:
				d = p.Reportf(v.Span, "the endpoint says port %s, and the port of %s is not used", e.port, s)
			default:
				d = p.Reportf(v.Span, "the endpoint is %s: lws requests %s from port %s, and port and http_url are not used",
					what, schema.QuoteName("/"+e.path), e.port)
			}
			if port != nil {
				d.Related = append(d.Related, schema.Related{Span: port.Member.Span(), Message: "the port"})
			}
			if lost {
				d.Related = append(d.Related, schema.Related{Span: url.Member.Span(), Message: "the path"})
			}
			if port != nil && samePort && e.scheme == "" && e.path == "" && !strings.HasPrefix(e.host, "[") && !strings.Contains(v.Text(), "$") {
				d.Fixes = []schema.Fix{{Message: "write the host alone", Edits: []schema.Edit{{Span: v.Span, NewText: schema.Quote(e.host)}}, Safe: true}}
			}
		}
	},
}
