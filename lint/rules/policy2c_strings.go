package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var policy2cStrings = &lint.Rule{
	Name:     "policy2c-strings",
	Group:    "policy2c",
	Severity: schema.Info,
	Summary:  "lws's policy2c does not escape this string for C",
	Why: `policy2c is lws's own compiler for C tables. sspolicy compile --lang c escapes every
string.`,
	LWS: `With a quote or control character, the C does not compile. A backslash and the next
character become an escape of C, or an error. "??/" and similar sequences are trigraphs to a C
compiler (policy2c of 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "find?q=\"x\"" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "find?q=%22x%22" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, d := range p.Policy.Definitions {
			if d.Section == schema.Certs || d.Section == schema.Retry {
				continue
			}
			check := func(at schema.Span, text string) {
				if what := unescaped(text); what != "" {
					p.Reportf(at, "policy2c writes %s in a string unescaped, which changes its meaning in C; compile --lang c escapes it", what)
				}
			}
			check(d.NameSpan, d.Name)
			for _, s := range d.Settings {
				if s.Key != nil && s.Key.Name != "name" {
					eachScalar(&s.Member.Value, func(v scalar) {
						if v.kind == schema.String {
							check(v.at, schema.Unquote(v.raw))
						}
					})
				}
			}
		}
	},
}

// unescaped describes the first part of a string that C interprets, or returns "".
func unescaped(s string) string {
	for i, r := range s {
		switch {
		case r == '"':
			return "a quote"
		case r == '\\':
			return "a backslash"
		case r < ' ':
			return "a control character"
		case r == '?' && i+2 < len(s) && s[i+1] == '?' && strings.IndexByte("=/'()!<>-", s[i+2]) >= 0:
			return "the trigraph " + s[i:i+3]
		}
	}
	return ""
}
