package rules

import (
	"regexp"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var surrogatePair = &lint.Rule{
	Name:       "surrogate-pair",
	ParserOnly: true,
	Severity:   schema.Error,
	Fixes:      lint.SafeFix,
	Summary:    "a character is written as a pair of escapes",
	Why:        `Write the character itself: a policy is UTF-8.`,
	LWS: `lws stores three bytes for each half of the pair. The result is not UTF-8, and its readers
may refuse it (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "payload_fmt": "\ud83d\ude00" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "payload_fmt": "😀" } } ] }`,
	Check: func(p *lint.Pass) {
		for _, v := range unusual(p).escaped {
			raw := strings.ReplaceAll(v.raw, `\\`, "..") // an escaped backslash starts no escape
			for _, pair := range surrogates.FindAllStringIndex(raw, -1) {
				span := schema.Span{Source: v.at.Source, Start: v.at.Start + pair[0], End: v.at.Start + pair[1]}
				escape := v.raw[pair[0]:pair[1]]
				char := schema.Unquote(`"` + escape + `"`)
				d := p.Reportf(span, "lws makes six bytes of %s, which are not UTF-8: write %s", escape, char)
				d.Fixes = []schema.Fix{{Message: "write " + char, Edits: []schema.Edit{{Span: span, NewText: char}}, Safe: true}}
			}
		}
	},
}

var surrogates = regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}`)
