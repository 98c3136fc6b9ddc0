package sspolicy

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// Overlay applies fragments to a document, as [overlay.Apply] does, and lints the
// result. The diagnostics of the result are those of both, sorted by position. One
// that the base does not have, about a part of the base, is at the change in a
// fragment that causes it.
func Overlay(base *schema.Document, fragments []*schema.Document, how overlay.Options, o lint.Options) overlay.Result {
	r := overlay.Apply(base, fragments, how)
	if r.Document == nil {
		return r
	}
	found := lint.Run(r.Document, rules.All(), o)
	if len(r.Changes) > 0 {
		found = blame(r, found, lint.Run(base, rules.All(), o))
	}
	r.Diagnostics = schema.SortDiagnostics(append(r.Diagnostics, found...))
	return r
}

// blame moves the diagnostics of a result that are in the base, and that the base
// does not have by itself, to the change that causes them.
func blame(r overlay.Result, found, before []schema.Diagnostic) []schema.Diagnostic {
	type finding struct {
		rule, message string
		span          schema.Span
	}
	known := map[finding]bool{}
	for _, g := range before {
		known[finding{g.Rule, g.Message, g.Span}] = true
	}
	view := schema.NewPolicy(r.Document)
	kept := found[:0]
	for _, g := range found {
		switch {
		case g.Span.Source != r.Document.Source || known[finding{g.Rule, g.Message, g.Span}]:
		case strings.HasPrefix(g.Rule, "unused-"):
			continue // the base uses it
		default:
			c := cause(r.Changes, view, g)
			g.Related = append([]schema.Related{{Span: g.Span, Message: "in the base"}}, g.Related...)
			g.Span, g.Fixes = c.By, nil
		}
		kept = append(kept, g)
	}
	return kept
}

// cause returns the change that causes a diagnostic: the last one to the definition
// that it is about or refers to, else the last one to a definition as a whole, else
// the last one.
func cause(changes []overlay.Change, view *schema.Policy, g schema.Diagnostic) *overlay.Change {
	spans := []schema.Span{g.Span}
	for _, other := range g.Related {
		spans = append(spans, other.Span)
	}
	for _, at := range spans {
		for i := range slices.Backward(changes) {
			if c := &changes[i]; slices.ContainsFunc(view.Lookup(c.Section, c.Name), func(d *schema.Definition) bool {
				return holds(d.NameSpan, at) || holds(d.Value.Span, at)
			}) {
				return c
			}
		}
	}
	for i := range slices.Backward(changes) {
		if changes[i].Key == "" {
			return &changes[i]
		}
	}
	return &changes[len(changes)-1]
}

// holds reports whether a span holds the start of another one.
func holds(s, other schema.Span) bool {
	return s.Source == other.Source && s.Start <= other.Start && other.Start < s.End
}
