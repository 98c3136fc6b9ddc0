package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// The rules about suppression comments, which Run itself checks.
const (
	RuleBadSuppression    = "bad-suppression"
	RuleUnusedSuppression = "unused-suppression"
)

const (
	ignoreLine = "sspolicy:ignore"
	ignoreFile = "sspolicy:ignore-file"
)

// A suppression is one rule in a suppression comment.
type suppression struct {
	rule  *Rule
	at    schema.Span // the name of the rule
	line  int         // of the comment
	whole bool        // applies to the whole file
	used  bool
}

// A suppressor removes the diagnostics that comments suppress.
type suppressor struct {
	rules   []*Rule // the rules that a comment may name
	checked []*Rule // the rules whose findings are all known
	wrong   []schema.Diagnostic
}

func (s *suppressor) report(rule string, severity schema.Severity, at schema.Span, format string, args ...any) *schema.Diagnostic {
	s.wrong = append(s.wrong, schema.Diagnostic{Rule: rule, Severity: severity, Span: at, Message: fmt.Sprintf(format, args...)})
	return &s.wrong[len(s.wrong)-1]
}

// Suppress returns the findings that no comment of a file suppresses, and those
// about the comments. It is for files that contain policies and have comments of
// their own, such as C sources. Since not all findings of such a file are known, no
// comment is reported as unused.
func Suppress(file *schema.Source, found []schema.Diagnostic, rules []*Rule, o Options) []schema.Diagnostic {
	list := make([]*schema.Diagnostic, len(found))
	for i := range found {
		list[i] = &found[i]
	}
	s := &suppressor{rules: slices.Concat(rules, o.Rules)}
	return schema.SortDiagnostics(s.apply(file, list))
}

// apply returns the diagnostics that no comment suppresses, and those about the
// comments.
func (s *suppressor) apply(of *schema.Source, found []*schema.Diagnostic) []schema.Diagnostic {
	sources := []*schema.Source{of}
	for _, g := range found {
		if !slices.Contains(sources, g.Span.Source) {
			sources = append(sources, g.Span.Source)
		}
	}
	directives := map[*schema.Source][]*suppression{}
	for _, src := range sources {
		for _, c := range src.Comments {
			directives[src] = append(directives[src], s.directive(c)...)
		}
	}
	remaining := make([]schema.Diagnostic, 0, len(found))
	for _, g := range found {
		if !suppressed(g, directives[g.Span.Source]) {
			remaining = append(remaining, *g)
		}
	}
	for _, src := range sources {
		for _, u := range directives[src] {
			if !u.used && slices.Contains(s.checked, u.rule) {
				s.report(RuleUnusedSuppression, schema.Warning, u.at, "no finding of the rule %s here", u.rule.Name)
			}
		}
	}
	return append(remaining, s.wrong...)
}

// suppressed reports whether one of the directives applies to a diagnostic, and
// marks those that do as used.
func suppressed(g *schema.Diagnostic, directives []*suppression) bool {
	hit, line := false, 0
	for _, u := range directives {
		if u.rule.Name != g.Rule {
			continue
		}
		if line == 0 && !u.whole {
			line = g.Span.Position().Line
		}
		if u.whole || u.line == line || u.line+1 == line {
			u.used, hit = true, true
		}
	}
	return hit
}

// foreign reports whether name has the form corp/name of a project's own rule and
// the run has no rules of that project. Only the command lint reads its
// configuration.
func (s *suppressor) foreign(name string) bool {
	project, _, ok := strings.Cut(name, "/")
	return ok && !slices.ContainsFunc(s.rules, func(r *Rule) bool { return strings.HasPrefix(r.Name, project+"/") })
}

// directive parses a comment and returns its suppressions.
func (s *suppressor) directive(c schema.Span) []*suppression {
	text := strings.TrimLeft(c.Text(), "#/* \t")
	word, _, _ := strings.Cut(text, " ")
	if !strings.HasPrefix(word, "sspolicy:") {
		return nil
	}
	lead := "#"
	if strings.HasPrefix(c.Text(), "/") {
		lead = "//"
	}
	at := func(part string) schema.Span { // part is a substring of the comment
		start := c.Start + strings.Index(c.Text(), part)
		return schema.Span{Source: c.Source, Start: start, End: start + len(part)}
	}
	bad := func(at schema.Span, format string, args ...any) *schema.Diagnostic {
		return s.report(RuleBadSuppression, schema.Error, at, format, args...)
	}
	if word != ignoreLine && word != ignoreFile {
		bad(at(word), "unknown directive %s: want %s or %s", word, ignoreLine, ignoreFile)
		return nil
	}
	names, reason, ok := strings.Cut(text[len(word):], "--")
	if !ok || strings.TrimSpace(reason) == "" {
		bad(at(word), "missing reason: write %s %s RULE -- REASON", lead, word)
		return nil
	}
	var list []*suppression
	for name := range strings.FieldsFuncSeq(names, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		rule := Lookup(s.rules, name)
		switch {
		case rule == nil && s.foreign(name):
		case rule == nil:
			var known []string
			for _, r := range s.rules {
				known = append(known, r.Name)
			}
			g := bad(at(name), "unknown rule %s", schema.QuoteName(name))
			if better := schema.Nearest(name, known); better != "" {
				g.Message += ": did you mean " + better + "?"
				g.Fixes = []schema.Fix{{Message: "write " + better, Edits: []schema.Edit{{Span: at(name), NewText: better}}}}
			}
		case rule.Firm:
			bad(at(name), "the rule %s cannot be suppressed", name)
		default:
			list = append(list, &suppression{rule: rule, at: at(name), line: c.Position().Line, whole: word == ignoreFile})
		}
	}
	if len(list) == 0 && strings.TrimSpace(strings.ReplaceAll(names, ",", "")) == "" {
		bad(at(word), "missing rule: write %s %s RULE -- REASON", lead, word)
	}
	return list
}
