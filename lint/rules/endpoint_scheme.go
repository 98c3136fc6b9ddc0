package rules

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var endpointScheme = &lint.Rule{
	Name:     "endpoint-scheme",
	Severity: schema.Error,
	Summary:  "the scheme of the endpoint contradicts tls",
	Why: `An endpoint is a host name. lws also accepts a URL, but its scheme can only turn TLS
off. Write only the host, and set tls. A scheme that turns TLS off is a warning, because it is a
feature of lws; one that seems to turn TLS on is an error.`,
	LWS: `http, ws and mqtt turn TLS off, whatever tls is. https and wss do not turn it on: lws
sends the request in plain text (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "http://example.com/index.html", "tls": true, "port": 80, "protocol": "h1",
                  "http_method": "GET", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "index.html", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for s, v := range endpoints(p) {
			e := parseEndpoint(v.Text())
			at := inside(v, 0, len(e.scheme)+len("://"))
			switch tls := s.Bool("tls"); {
			case tls && slices.Contains([]string{"http", "ws", "mqtt"}, e.scheme):
				p.Reportf(at, "%s:// turns TLS off, although %s has \"tls\": true: it is not encrypted", e.scheme, s).Severity = schema.Warning
			case !tls && slices.Contains([]string{"https", "wss", "mqtts"}, e.scheme):
				p.Reportf(at, "%s:// does not turn TLS on, and %s has no \"tls\": true: it is not encrypted", e.scheme, s)
			}
		}
	},
}

// An endpoint is the endpoint of a client as lws parses it.
type endpoint struct {
	overrides bool // it is a URL, or host:port, and overrides port and http_url
	scheme    string
	host      string
	port      string // as it stands, or the scheme's; "" if there is neither
	path      string // without the "/" at its start
	literal   bool   // it is an IPv6 address without brackets
}

// parseEndpoint parses an endpoint with a ":" as lws does. The text of ${name} is
// unknown, and is not parsed.
func parseEndpoint(s string) endpoint {
	if len(s) > schema.MaxString {
		return endpoint{}
	}
	for _, sym := range symbols(s) { // only the length matters
		s = s[:sym.start] + strings.Repeat("x", sym.end-sym.start) + s[sym.end:]
	}
	if !strings.Contains(s, ":") || strings.HasPrefix(s, "+") || strings.HasPrefix(s, "file://") || strings.HasPrefix(s, "::") {
		return endpoint{}
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
		return endpoint{literal: true}
	}
	e := endpoint{overrides: true, host: s}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		e.scheme, e.host = scheme, rest
		switch scheme {
		case "http", "ws":
			e.port = "80"
		case "https", "wss":
			e.port = "443"
		}
	}
	if i := strings.IndexByte(e.host, '/'); i >= 0 {
		e.host, e.path = e.host[:i], e.host[i+1:]
	}
	e.host = e.host[strings.LastIndexByte(e.host, '@')+1:] // lws does not interpret userinfo: see embedded-secret
	if i := strings.LastIndexByte(e.host, ':'); i > strings.LastIndexByte(e.host, ']') {
		e.host, e.port = e.host[:i], e.host[i+1:]
	}
	return e
}

// endpoints returns the streamtypes that connect to their endpoint, and its value.
func endpoints(p *lint.Pass) iter.Seq2[*schema.Definition, *schema.Value] {
	return func(yield func(*schema.Definition, *schema.Value) bool) {
		for _, s := range streams(p) {
			set := s.Get("endpoint")
			if set == nil || s.Bool("server") || set.Member.Value.Kind != schema.String {
				continue
			}
			if !yield(s, &set.Member.Value) {
				return
			}
		}
	}
}
