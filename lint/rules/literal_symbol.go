package rules

import (
	"regexp"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var literalSymbol = &lint.Rule{
	Name:     "literal-symbol",
	Severity: schema.Warning,
	Fixes:    lint.UnsafeFix,
	Summary:  "the name of a metadata item is not replaced here",
	Why: `${name} is replaced by metadata in endpoint, http_url, and the topics and messages of
MQTT. In other keys it is sent unchanged. $(name), $name, {name} and %name% are never replaced. If
the streamtype has metadata of that name, a replacement was probably intended.`,
	LWS: `No version replaces anything in ws_subprotocol, http_auth_preamble, http_multipart_name,
http_multipart_filename, http_mime_content_type and the keys that name headers (4.1.6 to 5.0.0, each
call of lws_strexp_expand).`,
	Bad: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "files/${name}",
                  "http_multipart_name": "file", "http_multipart_filename": "${name}", "metadata": [ { "name": "" } ] } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "files/${name}",
                  "http_multipart_name": "file", "http_multipart_filename": "data.bin", "metadata": [ { "name": "" } ] } } ] }`,
	Check: func(p *lint.Pass) {
		var items nameSet // of d, if read is set
		for _, d := range streams(p) {
			read := false
			for _, s := range d.Settings {
				v := &s.Member.Value
				if s.Key == nil || s.Key.Ref != schema.Top || v.Kind != schema.String || !strings.ContainsAny(v.Raw(), "${%") {
					continue
				}
				text := v.Text()
				found := symbols(text)
				if !expanded[s.Key.Name] || d.Bool("server") {
					for _, sym := range found {
						if sym.name != "" {
							p.Reportf(inside(v, sym.start, sym.end), "%s is not replaced: lws expands nothing in the %s of a %s",
								text[sym.start:sym.end], s.Key.Name, role(d))
						}
					}
					continue
				}
				if n := len(found); strings.Count(text, "$") == n && strings.Count(text, "{") == n && strings.IndexByte(text, '%') < 0 &&
					!slices.ContainsFunc(found, func(s symbol) bool { return s.problem != "" }) {
					continue // all of it is ${name}
				}
				if !read {
					read = true
					items.reset()
					for _, m := range metadata(d) {
						items.add(m.Key)
					}
				}
				for _, at := range nearSymbol.FindAllStringSubmatchIndex(text, -1) {
					for group := 2; group < len(at); group += 2 {
						if at[group] < 0 || !items.has(text[at[group]:at[group+1]]) {
							continue
						}
						if at[0] > 0 && text[at[0]-1] == '$' {
							continue // ${name}, or a bad-symbol
						}
						want := "${" + text[at[group]:at[group+1]] + "}"
						g := p.Reportf(inside(v, at[0], at[1]), "%s is not replaced: write %s for the metadata of that name", text[at[0]:at[1]], want)
						g.Fixes = []schema.Fix{{Message: "write " + want, Edits: []schema.Edit{{Span: v.Span, NewText: schema.Quote(text[:at[0]] + want + text[at[1]:])}}}}
					}
				}
			}
		}
	},
}

// nearSymbol matches the syntax of other programs for ${name}.
var nearSymbol = regexp.MustCompile(`\$\(([^()]+)\)|\$([A-Za-z_][A-Za-z0-9_]*)|\{([^{}$]+)\}|%([^%]+)%`)

func role(d *schema.Definition) string {
	if d.Bool("server") {
		return "server"
	}
	return "client"
}
