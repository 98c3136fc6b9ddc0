package rules

import (
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

var undefinedReference = &lint.Rule{
	Name:     "undefined-reference",
	Severity: schema.Error,
	Fixes:    lint.UnsafeFix,
	Summary:  "a reference has no definition",
	Why:      `The name is misspelt, or the entry is missing.`,
	LWS: `lws refuses the policy, unless the name of a backoff scheme, trust store or certificate
begins with the reference; then it uses that one. A request that shares its connection with a
streamtype that does not exist never ends (4.1.6 to 5.0.0).`,
	Bad: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "retry": "defualt" } } ] }`,
	Good: `{ "retry": [ { "default": { "backoff": [ 1000 ] } } ],
  "s": [ { "a": { "endpoint": "example.com", "http_method": "GET", "port": 80, "retry": "default" } } ] }`,
	Check: func(p *lint.Pass) {
		defs := resolution(p).Definition
		for _, r := range p.Policy.References {
			if r.Target != nil || r.Later != nil || r.Name == "" {
				continue // an empty name is a bad-length
			}
			d := p.Reportf(r.Span, "%s %s is not defined", r.Key.Ref.Noun(), schema.QuoteName(r.Name))
			if better := nearest(p, r.Key.Ref, r.Name); better != "" {
				d.Message += ": did you mean " + schema.QuoteName(better) + "?"
				if ref := r.Key.Ref; (ref == schema.Retry || ref == schema.Streams) && misspelt(r.Name, better) {
					d.Fixes = []schema.Fix{{
						Message: "write " + better,
						Edits:   []schema.Edit{{Span: r.Span, NewText: schema.Quote(better)}},
					}}
				}
			}
			if got := defs[r]; got != nil {
				d.Message += "; lws uses " + schema.QuoteName(got.Name) + ", whose name begins with it"
				d.Related = []schema.Related{{Span: got.NameSpan, Message: "lws uses this"}}
			}
		}
	},
}

// misspelt reports whether a name is probably a misspelling of another. Names that differ
// only in digits, such as prod1 and prod2, are not misspellings. A fix never changes trust
// on such a guess.
func misspelt(name, other string) bool {
	letters := func(s string) string {
		return strings.Map(func(r rune) rune {
			if '0' <= r && r <= '9' {
				return -1
			}
			return r
		}, s)
	}
	return letters(name) != letters(other)
}
