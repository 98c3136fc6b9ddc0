package rules

import (
	"net/netip"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var plainFetchPolicy = &lint.Rule{
	Name:     "plain-fetch-policy",
	Severity: schema.Warning,
	Summary:  "the policy is fetched without TLS",
	Why: `The response to fetch_policy becomes the policy. An attacker on the network path can
replace it with one that has other endpoints and trust stores.`,
	LWS: `lws fetches the policy when the network is up, parses it, and uses it (5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "fetch_policy": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET",
                             "http_url": "policy.json", "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "fetch_policy": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                             "http_url": "policy.json", "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, s := range p.Policy.Lookup(schema.Streams, "fetch_policy") {
			if unclear(s) || s.Bool("tls") || s.Bool("server") || s.Bool("local_sink") || s.Get("endpoint") == nil {
				continue
			}
			host := s.Text("endpoint")
			if e := parseEndpoint(host); e.overrides {
				host = e.host
			}
			if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && a.IsLoopback() || host == "localhost" ||
				strings.HasPrefix(host, "+") || strings.HasPrefix(host, "file://") {
				continue
			}
			p.Reportf(s.NameSpan, "the policy is fetched without TLS: an attacker on the network path can replace it")
		}
	},
}
