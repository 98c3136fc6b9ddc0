package lsp

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// The kinds of code actions.
const (
	kindQuickFix = "quickfix"
	kindFixAll   = "source.fixAll.sspolicy"
	kindImport   = "refactor.import.sspolicy"
)

// codeActions returns the quick fixes and ignore actions of the findings in a range, an
// action that applies all safe fixes of the document, and imports of certificates.
func (s *server) codeActions(_ context.Context, snap *snapshot, p codeActionParams) (any, error) {
	wants := func(kind string) bool {
		return len(p.Context.Only) == 0 || slices.ContainsFunc(p.Context.Only, func(only string) bool {
			return kind == only || strings.HasPrefix(kind, only+".")
		})
	}
	list := []codeAction{}
	found := snap.findings()
	if wants(kindQuickFix) {
		for _, g := range found {
			if r := snap.span(g.Span); comparePositions(r.Start, p.Range.End) <= 0 && comparePositions(p.Range.Start, r.End) <= 0 {
				list = append(list, s.fixes(snap, g)...)
			}
		}
	}
	safe := func(g schema.Diagnostic) bool {
		return slices.ContainsFunc(g.Fixes, func(f schema.Fix) bool { return f.Safe })
	}
	if wants(kindFixAll) && snap.plain() && slices.ContainsFunc(found, safe) {
		o := s.options(snap)
		o.Fragment = snap.fragment() != nil
		if fixed, done := lint.Fix(snap.full(), rules.All(), o); len(done) > 0 {
			list = append(list, codeAction{Title: "Apply all safe fixes", Kind: kindFixAll, Edit: snap.edit(snap.difference(fixed.Source.Text))})
		}
	}
	if wants(kindImport) && snap.plain() {
		list = append(list, s.imports(snap, p.Range.Start)...)
	}
	return list, nil
}

// edit returns edits of the document.
func (snap *snapshot) edit(edits ...textEdit) *workspaceEdit {
	return &workspaceEdit{map[string][]textEdit{snap.uri: edits}}
}

// fixes returns the actions for a finding.
func (s *server) fixes(snap *snapshot, g schema.Diagnostic) (list []codeAction) {
	about := s.diagnostics(snap, []schema.Diagnostic{g})
	preferred := true // the first safe fix
	for _, f := range g.Fixes {
		var edits []textEdit
		for _, e := range f.Edits {
			edits = append(edits, textEdit{snap.span(e.Span), e.NewText})
		}
		title := strings.ToUpper(f.Message[:1]) + f.Message[1:]
		if !f.Safe {
			title += " (may change what the policy means)"
		}
		list = append(list, codeAction{Title: title, Kind: kindQuickFix, Diagnostics: about, IsPreferred: f.Safe && preferred, Edit: snap.edit(edits...)})
		preferred = preferred && !f.Safe
	}
	if rule := s.configFor(snap).Lookup(g.Rule); snap.plain() && rule != nil && !rule.Firm && g.Rule != lint.RuleBadSuppression && g.Rule != lint.RuleUnusedSuppression {
		list = append(list, codeAction{
			Title: "Ignore " + g.Rule + " here, with a reason", Kind: kindQuickFix, Diagnostics: about, Edit: snap.edit(snap.ignore(g)),
		})
	}
	return list
}

// ignore returns the edit that suppresses a finding: a comment on the line above, or on the
// same line if no comment can stand above it.
func (snap *snapshot) ignore(g schema.Diagnostic) textEdit {
	directive := "# sspolicy:ignore " + g.Rule + " -- REASON"
	content, line := snap.text.content, int(snap.text.position(g.Span.Start).Line)
	start, end := snap.text.lines[line], snap.text.end(line)
	d := snap.scan().doc
	commented := slices.ContainsFunc(d.Source.Comments, func(c schema.Span) bool { return start <= c.Start && c.Start < end })
	// lws takes the policy for a file name if it does not begin with "{".
	if start <= d.Root.Span.Start && !commented {
		at := snap.text.span(end, end)
		return textEdit{at, " " + directive}
	}
	text := content[start:end]
	indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	return textEdit{snap.text.span(start, start), indent + directive + "\n"}
}

// difference returns the edit that changes the document into after. It spares their common
// prefix and suffix.
func (snap *snapshot) difference(after string) textEdit {
	before := snap.text.content
	start := 0
	for start < len(before) && start < len(after) && before[start] == after[start] {
		start++
	}
	// Do not split a character or \r\n.
	for start > 0 && (start < len(before) && !boundary(before, start) || start < len(after) && !boundary(after, start)) {
		start--
	}
	end, n := len(before), len(after)
	for end > start && n > start && before[end-1] == after[n-1] {
		end, n = end-1, n-1
	}
	for end < len(before) && (!boundary(before, end) || !boundary(after, n)) {
		end, n = end+1, n+1
	}
	return textEdit{snap.text.span(start, end), after[start:n]}
}

// boundary reports whether an edit may start or end at an offset.
func boundary(s string, offset int) bool {
	return utf8.RuneStart(s[offset]) && !(s[offset] == '\n' && offset > 0 && s[offset-1] == '\r')
}

// formatting returns the edit that formats the document, or none if it has syntax
// errors.
func (s *server) formatting(_ context.Context, snap *snapshot, _ documentParams) (any, error) {
	d := snap.scan().doc
	if schema.HasErrors(d.Syntax) {
		return []textEdit{}, nil
	}
	after, err := schema.Format(d)
	if err != nil || after == snap.text.content {
		return []textEdit{}, err
	}
	return []textEdit{snap.difference(after)}, nil
}
