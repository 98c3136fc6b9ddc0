package rules

import (
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var undeclaredMetadata = &lint.Rule{
	Name:     "undeclared-metadata",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "the streamtype does not declare a metadata item that it uses",
	Why: `A streamtype has only the metadata of its own list; declare an item that is only for ${name}
as {"name": ""}. The items that aws_region and aws_service name must be declared as well.`,
	LWS: `With such an endpoint lws never connects, and 4.2.2 crashes if the stream requests the
connection while it is being created. lws truncates an http_url there, and 4.2.2 to 5.0.0 send
some bytes of memory after it (4.1.6 to 5.0.0). For a missing region or service, lws passes NULL
to strcmp (by the source of 5.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "devices/${id}", "metadata": [ { "device": "x-device-id:" } ],
                  "opportunistic": true, "retry": "default" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 443, "tls": true, "protocol": "h1", "http_method": "GET",
                  "http_url": "devices/${device}", "metadata": [ { "device": "x-device-id:" } ],
                  "opportunistic": true, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		renamed := map[*schema.Member]bool{}
		var names nameSet // of the metadata
		for _, s := range streams(p) {
			read := false
			var declared map[string]*schema.Member // if a name is wrong
			var list []string                      // of its keys, in the order of the text
			var uses map[string]int                // of names
			check := func(k *schema.Key, at schema.Span, name, hint string, edit func(string) string) {
				if !read {
					read = true
					names.reset()
					for _, m := range metadata(s) {
						names.add(m.Key)
					}
				}
				if names.has(name) {
					return
				}
				d := p.Reportf(at, "%s has no metadata %s, which %s names: ", s, schema.QuoteName(name), k.Name)
				if declared == nil {
					declared, uses = map[string]*schema.Member{}, map[string]int{}
					for _, m := range metadata(s) {
						declared[m.Key] = m
						list = append(list, m.Key)
					}
					eachSymbol(s, func(_ *schema.Key, _ *schema.Value, sym symbol) { uses[sym.name]++ })
				}
				better := schema.Nearest(name, list)
				if better == "" {
					d.Message += hint
					return
				}
				d.Message += "did you mean " + schema.QuoteName(better) + "?"
				switch m := declared[better]; {
				case !misspelt(name, better):
				case uses[better] == 0 && uses[name] > 1: // the mistake is in the declaration
					d.Related = []schema.Related{{Span: m.Name.Span, Message: "it is declared here as " + schema.QuoteName(better)}}
					if !renamed[m] {
						renamed[m] = true
						d.Fixes = []schema.Fix{{Message: "declare " + name, Edits: []schema.Edit{{Span: m.Name.Span, NewText: schema.Quote(name)}}}}
					}
				default:
					d.Fixes = []schema.Fix{{Message: "write " + better, Edits: []schema.Edit{{Span: at, NewText: edit(better)}}}}
				}
			}
			eachSymbol(s, func(k *schema.Key, v *schema.Value, sym symbol) {
				if sym.problem != "" {
					return
				}
				at, text := inside(v, sym.start, sym.end), v.Text()
				check(k, at, sym.name, "add {"+schema.QuoteName(sym.name)+`: ""} to it`, func(better string) string {
					if at == v.Span {
						return schema.Quote(text[:sym.start] + "${" + better + "}" + text[sym.end:])
					}
					raw := schema.Quote("${" + better + "}")
					return raw[1 : len(raw)-1]
				})
			})
			for _, key := range []string{"aws_region", "aws_service"} {
				if set := s.Get(key); set != nil && set.Key != nil && set.Member.Value.Kind == schema.String {
					v := &set.Member.Value
					check(set.Key, v.Span, v.Text(), "its value is the name of an item, whose value the program sets", schema.Quote)
				}
			}
		}
	},
}
