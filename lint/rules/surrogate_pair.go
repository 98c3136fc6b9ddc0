package rules

import (
	"regexp"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var surrogatePair = &lint.Rule{
	Name:     "surrogate-pair",
	Severity: schema.Error,
	Fixes:    lint.SafeFix,
	Summary:  "a character is written as a pair of escapes",
	Why:      `Write the character itself: a policy is UTF-8.`,
	LWS: `lws stores three bytes for each half of the pair. The result is not UTF-8, and its readers
may refuse it (4.1.6 to 5.0.0).`,
	Bad:  `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "payload_fmt": "\ud83d\ude00" } } ] }`,
	Good: `{ "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "", "payload_fmt": "😀" } } ] }`,
	Check: func(p *lint.Pass) {
		eachString(&p.Policy.Document.Root, func(v *schema.Value) {
			if !strings.Contains(v.Raw, `\u`) {
				return
			}
			raw := strings.ReplaceAll(v.Raw, `\\`, "..") // an escaped backslash starts no escape
			for _, at := range surrogates.FindAllStringIndex(raw, -1) {
				span := schema.Span{Source: v.Span.Source, Start: v.Span.Start + at[0], End: v.Span.Start + at[1]}
				escape := span.Text()
				quoted := &schema.Value{Kind: schema.String, Raw: `"` + escape + `"`}
				d := p.Reportf(span, "lws makes six bytes of %s, which are not UTF-8: write %s", escape, quoted.Text())
				d.Fixes = []schema.Fix{{Message: "write " + quoted.Text(), Edits: []schema.Edit{{Span: span, NewText: quoted.Text()}}, Safe: true}}
			}
		})
	},
}

var surrogates = regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}`)
