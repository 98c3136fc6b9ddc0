package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var policy2cOrder = &lint.Rule{
	Name:     "policy2c-order",
	Group:    "policy2c",
	Severity: schema.Info,
	Summary:  "lws's policy2c reverses the order of a list",
	Why: `This matters to a program that uses the index of a metadata item, and to a comparison of
the C tables of policy2c with the policy. sspolicy compile --lang c keeps the order, and the
indexes that lws assigns when it reads the policy itself. The rule reports each kind of list once
in a policy.`,
	LWS: `policy2c numbers metadata items, and lists the certificates of a trust store, from the last
one (policy2c of 5.0.0).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "x-id:" }, { "type": "content-type:" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "",
                  "metadata": [ { "id": "x-id:" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range streams(p) {
			n := 0
			list(d, "metadata", func(*schema.Member) { n++ })
			if n > 1 {
				p.Reportf(d.Get("metadata").Member.Name.Span, "policy2c numbers metadata from the last item; compile --lang c does not")
				break
			}
		}
		for _, d := range p.Policy.Section(schema.TrustStores) {
			at, list := d.NameSpan, d.Value // in the form of lws's README
			if s := d.Get("stack"); s != nil {
				at, list = s.Member.Name.Span, &s.Member.Value
			}
			if len(list.Elems()) > 1 {
				p.Reportf(at, "policy2c lists the certificates of a trust store from the last one; compile --lang c does not")
				break
			}
		}
	},
}
