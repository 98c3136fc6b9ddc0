package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var policy2cSymbols = &lint.Rule{
	Name:     "policy2c-symbols",
	Group:    "policy2c",
	Severity: schema.Info,
	Summary:  "lws's policy2c writes an invalid C symbol for this name",
	Why: `policy2c, lws's own compiler for C tables, turns names into C symbols: it keeps letters,
digits and "_", and replaces other characters with "_". sspolicy compile --lang c writes unique
symbols.`,
	LWS: `Two names with the same symbol are defined twice, which does not compile. A certificate with
other characters in its name does not compile in a trust store, which uses the name
unchanged; nor does a streamtype and metadata item of more than 122 bytes together. A name
of 64 bytes or more overflows a buffer (policy2c of 5.0.0).`,
	Bad: `{ "s": [ { "door-bell": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } },
         { "door_bell": { "endpoint": "example.com", "port": 81, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Good: `{ "s": [ { "door_bell": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "" } } ] }`,
	Check: func(p *lint.Pass) {
		first := map[string]schema.Span{}
		define := func(at schema.Span, prefix, name string) {
			symbol := prefix + cSymbol(name)
			if one, ok := first[symbol]; ok {
				g := p.Reportf(at, "policy2c defines the symbol %s twice; compile --lang c does not", schema.QuoteName(symbol))
				g.Related = []schema.Related{{Span: one, Message: "the other one"}}
				return
			}
			first[symbol] = at
		}
		long := func(at schema.Span, name string) {
			if len(name) > 63 {
				p.Reportf(at, "this name has %d bytes, and policy2c has room for 63; compile --lang c takes it", len(name))
			}
		}
		for _, d := range p.Policy.Definitions {
			switch d.Section {
			case schema.Streams:
				long(d.NameSpan, d.Name)
				define(d.NameSpan, "_ssp_", d.Name)
				list(d, "metadata", func(m *schema.Member) {
					long(m.Name.Span, m.Key)
					define(m.Name.Span, "_md_"+cSymbol(d.Name)+"_", m.Key)
					if len(d.Name) <= 63 && len(m.Key) <= 63 && len(d.Name)+len(m.Key) > 122 {
						p.Reportf(m.Name.Span, "this name and the name of the streamtype have %d bytes, and policy2c has room for 122; compile --lang c takes them", len(d.Name)+len(m.Key))
					}
				})
			case schema.Certs:
				long(d.NameSpan, d.Name)
				define(d.NameSpan, "_ss_der_", d.Name)
			case schema.TrustStores:
				long(d.NameSpan, d.Name)
				define(d.NameSpan, "_ss_ts_", d.Name)
			case schema.Auth:
				long(d.NameSpan, d.Name)
				define(d.NameSpan, "_ssau_", d.Name)
			}
		}
		for _, r := range p.Policy.References {
			if r.Key.Name == "stack" && cSymbol(r.Name) != r.Name {
				p.Reportf(r.Span, "policy2c uses the name of certificate %s, which is not a C symbol; compile --lang c does not", schema.QuoteName(r.Name))
			}
		}
	},
}

// cSymbol returns the symbol that policy2c derives from a name.
func cSymbol(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			c = '_'
		}
		b.WriteByte(c)
	}
	return b.String()
}
