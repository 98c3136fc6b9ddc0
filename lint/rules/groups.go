package rules

import (
	"slices"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// strictTLS is the group of rules for products that must trust nobody but their
// own servers.
const strictTLS = "strict-tls"

var noTrustStore = &lint.Rule{
	Name:     "no-trust-store",
	Group:    strictTLS,
	Severity: schema.Warning,
	Summary:  "a client trusts all authorities of the system",
	Why: `Without tls_trust_store, any of the authorities that the operating system comes with can vouch
for the server.`,
	LWS: `lws uses the trust store of its TLS library, if that has one (4.1.6 to 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "certs": [ { "ca": "` + exampleRoot + `" } ], "trust_stores": [ { "name": "own", "stack": [ "ca" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if d.Bool("tls") && lacks(d, "tls_trust_store") {
				p.Reportf(d.NameSpan, "%s has no tls_trust_store: it trusts all authorities of the system", d)
			}
		}
	},
}

var plainText = &lint.Rule{
	Name:     "plain-text",
	Group:    strictTLS,
	Severity: schema.Warning,
	Summary:  "a client connects to another machine without TLS",
	Why: `What is sent and received can be read and changed on the way. The streamtype
captive_portal_detect is left out, which has to be in clear.`,
	LWS:  `lws connects without TLS if "tls" is not true (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: noTrustStore.Good,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if !encrypted(d) && beyondLoopback(d) && d.Name != "captive_portal_detect" {
				p.Reportf(d.NameSpan, "%s connects to another machine without TLS", d)
			}
		}
	},
}

var clientCertWithoutTLS = &lint.Rule{
	Name:     "client-cert-without-tls",
	Group:    strictTLS,
	Severity: schema.Error,
	Summary:  "a client has a certificate and no TLS to show it in",
	Why:      `The server does not learn who the client is.`,
	LWS:      `lws ignores client_cert if "tls" is not true (4.1.6 to 5.0.0).`,
	Bad:      `{ "s": [ { "a": { "endpoint": "127.0.0.1", "port": 80, "client_cert": 0, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good:     noTrustStore.Good,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if s := d.Get("client_cert"); s != nil && !encrypted(d) {
				p.Reportf(s.Member.Name.Span, "%s has no TLS in which to show its client_cert", d)
			}
		}
	},
}

// style is the group of rules about how a policy is kept.
const style = "style"

var noRelease = &lint.Rule{
	Name:     "no-release",
	Group:    style,
	Severity: schema.Info,
	Summary:  "the policy has no release",
	Why:      `"release" says which version of the policy a device has, in logs and to people.`,
	LWS:      `lws reads and ignores it (4.1.6 to 5.0.0).`,
	Bad:      `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good:     `{ "release": "7", "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		root := &p.Policy.Document.Root
		if len(streams(p)) == 0 || slices.ContainsFunc(root.Members(), func(m *schema.Member) bool { return m.Key == "release" }) {
			return
		}
		at := root.Span
		at.End = at.Start + 1
		p.Reportf(at, `the policy has no "release"`)
	},
}

var singleRoot = &lint.Rule{
	Name:     "single-root",
	Group:    style,
	Severity: schema.Info,
	Summary:  "a client trusts one authority alone",
	Why: `When the server changes to another authority, or that one ends, no device connects any more,
not even to get a new policy. A second certificate, of the authority to change to, makes that possible.`,
	LWS: `lws trusts the certificates of the stack and no others (4.1.6 to 5.0.0).`,
	Bad: `{ "release": "7", "certs": [ { "ca": "` + exampleRoot + `" } ], "trust_stores": [ { "name": "own", "stack": [ "ca" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "release": "7", "certs": [ { "ca": "` + exampleRoot + `" }, { "backup": "` + exampleRoot2 + `" } ], "trust_stores": [ { "name": "own", "stack": [ "ca", "backup" ] } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "own", "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		stacks := stacked(p)
		for _, d := range p.Policy.Section(schema.TrustStores) {
			if len(stacks[d]) == 1 {
				p.Reportf(d.NameSpan, "%s holds one certificate: when the server changes its authority, no device connects any more", d)
			}
		}
	},
}
