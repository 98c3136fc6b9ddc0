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
	filter := o.Filter
	o.Filter = nil
	r := overlay.Apply(base, fragments, how)
	if r.Document != nil {
		found := lint.Run(r.Document, rules.All(), o)
		if len(r.Changes) > 0 {
			found = blame(r, found, lint.Run(base, rules.All(), o))
		}
		if how.LWS == (schema.Version{}) {
			// With the comments of the fragments that suppress findings.
			r.Diagnostics = slices.DeleteFunc(r.Diagnostics, func(d schema.Diagnostic) bool { return !strings.HasPrefix(d.Rule, "overlay-") })
			o.Fragment = true
			for _, f := range fragments {
				found = append(found, lint.Run(f, rules.All(), o)...)
			}
		}
		r.Diagnostics = schema.SortDiagnostics(append(r.Diagnostics, found...))
	}
	if filter != nil {
		r.Diagnostics = filter(r.Diagnostics)
	}
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

// cause returns the change that causes a diagnostic. Changes rank by how close they
// are: that of a definition that the message names, that of a setting it names in the
// definition it is about, another one in that definition, then any; the last of
// several.
func cause(changes []overlay.Change, view *schema.Policy, g schema.Diagnostic) *overlay.Change {
	about := func(c *overlay.Change) bool {
		return slices.ContainsFunc(view.Lookup(c.Section, c.Name), func(d *schema.Definition) bool {
			return holds(d.NameSpan, g.Span) || holds(d.Value.Span, g.Span)
		})
	}
	rank := func(c *overlay.Change) int {
		switch {
		case c.Key == "" && strings.Contains(g.Message, schema.QuoteName(c.Name)):
			return 3
		case !about(c):
			return 0
		case c.Key != "" && strings.Contains(g.Message, c.Key):
			return 2
		}
		return 1
	}
	best := &changes[0]
	for i := range changes {
		if c := &changes[i]; rank(c) >= rank(best) {
			best = c
		}
	}
	return best
}

// holds reports whether a span holds the start of another one.
func holds(s, other schema.Span) bool {
	return s.Source == other.Source && s.Start <= other.Start && other.Start < s.End
}
