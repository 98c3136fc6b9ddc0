package lint

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

var badSuppression = &Rule{
	Name:     "bad-suppression",
	Severity: schema.Error,
	Summary:  "a comment that should suppress findings does not",
	Why: `A finding is suppressed by a comment on its line or the line above:

    # sspolicy:ignore RULE, ... -- REASON

or, for the whole file, by sspolicy:ignore-file. The reason is for whoever reads
the policy next, and must not be missing. Rules about what lws crashes on can't
be suppressed.`,
	LWS: `lws reads over comments from "#" to the end of the line (4.3.10 and 5.0.0).`,
	Bad: `{ # sspolicy:ignore unknown-key
  "s": [] }`,
	Good: `{ "extra": 1, # sspolicy:ignore unknown-key -- read by our own tools
  "s": [] }`,
	Firm: true,
}

var unusedSuppression = &Rule{
	Name:     "unused-suppression",
	Severity: schema.Warning,
	Summary:  "a comment suppresses a finding that is not there",
	Why:      `The mistake it was for has been mended, or it is on the wrong line.`,
	LWS:      `lws reads over comments from "#" to the end of the line (4.3.10 and 5.0.0).`,
	Bad: `{ # sspolicy:ignore unknown-key -- read by our own tools
  "s": [] }`,
	Good: `{ "extra": 1, # sspolicy:ignore unknown-key -- read by our own tools
  "s": [] }`,
	Firm: true,
}

const (
	ignoreLine = "sspolicy:ignore"
	ignoreFile = "sspolicy:ignore-file"
)

// A suppression is one rule in a comment that suppresses.
type suppression struct {
	rule  *Rule
	at    schema.Span // the rule's name
	line  int         // of the comment
	whole bool
	used  bool
}

// suppress takes out the diagnostics that comments of their source suppress,
// and adds what is wrong with those comments. The rules are those that were
// checked.
func suppress(d *schema.Document, found []schema.Diagnostic, checked []*Rule) []schema.Diagnostic {
	sources := []*schema.Source{d.Source}
	for _, g := range found {
		if !slices.Contains(sources, g.Span.Source) {
			sources = append(sources, g.Span.Source)
		}
	}
	directives := map[*schema.Source][]*suppression{}
	p := &pass{}
	for _, s := range sources {
		for _, c := range s.Comments {
			p.rule = badSuppression
			directives[s] = append(directives[s], p.directive(c)...)
		}
	}
	kept := slices.DeleteFunc(found, func(g schema.Diagnostic) bool {
		hit := false
		line := 0
		for _, s := range directives[g.Span.Source] {
			if s.rule.Name != g.Rule {
				continue
			}
			if line == 0 && !s.whole {
				line = g.Span.Position().Line
			}
			if s.whole || s.line == line || s.line+1 == line {
				s.used, hit = true, true
			}
		}
		return hit
	})
	p.rule = unusedSuppression
	for _, s := range sources {
		for _, u := range directives[s] {
			if !u.used && slices.Contains(checked, u.rule) {
				p.report(u.at, "nothing here breaks the rule %s", u.rule.Name)
			}
		}
	}
	return append(kept, p.found...)
}

// directive reads a comment, and returns what it suppresses.
func (p *pass) directive(c schema.Span) []*suppression {
	text := strings.TrimLeft(c.Text(), "# \t")
	word, _, _ := strings.Cut(text, " ")
	if !strings.HasPrefix(word, "sspolicy:") {
		return nil
	}
	at := func(part string) schema.Span { // part is a substring of the comment
		start := c.Start + strings.Index(c.Text(), part)
		return schema.Span{Source: c.Source, Start: start, End: start + len(part)}
	}
	if word != ignoreLine && word != ignoreFile {
		p.report(at(word), "there is no %s: it is %s or %s", word, ignoreLine, ignoreFile)
		return nil
	}
	names, reason, ok := strings.Cut(text[len(word):], "--")
	if !ok || strings.TrimSpace(reason) == "" {
		p.report(at(word), "a reason is missing: write # %s RULE -- REASON", word)
		return nil
	}
	var list []*suppression
	for name := range strings.FieldsFuncSeq(names, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		rule := Lookup(name)
		switch {
		case rule == nil:
			var names []string
			for _, r := range rules {
				names = append(names, r.Name)
			}
			d := p.report(at(name), "there is no rule %s", schema.QuoteName(name))
			if better := schema.Nearest(name, names); better != "" {
				d.Message += ": did you mean " + better + "?"
				d.Fixes = []schema.Fix{{Message: "write " + better, Edits: []schema.Edit{{Span: at(name), NewText: better}}}}
			}
		case rule.Firm:
			p.report(at(name), "the rule %s can't be suppressed", name)
		default:
			list = append(list, &suppression{rule: rule, at: at(name), line: c.Position().Line, whole: word == ignoreFile})
		}
	}
	if len(list) == 0 && strings.TrimSpace(strings.ReplaceAll(names, ",", "")) == "" {
		p.report(at(word), "a rule is missing: write # %s RULE -- REASON", word)
	}
	return list
}
