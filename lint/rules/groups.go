package rules

import (
	"slices"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// strictTLS is the group of rules for products that must trust only their own servers.
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
	Why: `Anybody on the network path can read and change the data. The rule ignores the
streamtype captive_portal_detect, which must not use TLS.`,
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
	Summary:  "a client has a certificate, but no TLS",
	Why:      `The server cannot identify the client.`,
	LWS:      `lws ignores client_cert if "tls" is not true (4.1.6 to 5.0.0).`,
	Bad:      `{ "s": [ { "a": { "endpoint": "127.0.0.1", "port": 80, "client_cert": 0, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good:     noTrustStore.Good,
	Check: func(p *lint.Pass) {
		for _, d := range clients(p) {
			if s := d.Get("client_cert"); s != nil && !encrypted(d) {
				p.Reportf(s.Member.Name.Span, "%s needs TLS to send its client_cert", d)
			}
		}
	},
}

// style is the group of rules about the maintenance of a policy.
const style = "style"

var noRelease = &lint.Rule{
	Name:     "no-release",
	Group:    style,
	Severity: schema.Info,
	Summary:  "the policy has no release",
	Why:      `"release" identifies the version of the policy on a device, in logs and for people.`,
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
	Summary:  "a client trusts only one authority",
	Why: `When the server changes to another authority, or the certificate of this one expires, no
device can connect, not even to get a new policy. Add the certificate of a second authority.`,
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
