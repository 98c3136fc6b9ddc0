package sspolicy

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// Overlay applies fragments to base, as [overlay.Apply] does, and lints the result
// with o. Diagnostics of the returned result holds the findings of both, sorted by
// position. A finding about part of base that base alone does not have is reported
// at the change in the fragment that causes it.
func Overlay(base *schema.Document, fragments []*schema.Document, options overlay.Options, lintOptions lint.Options) overlay.Result {
	filter := lintOptions.Filter
	lintOptions.Filter = nil
	r := overlay.Apply(base, fragments, options)
	if r.Document != nil {
		found := lint.Run(r.Document, rules.All(), lintOptions)
		if len(r.Changes) > 0 {
			found = blame(r, found, lint.Run(base, rules.All(), lintOptions))
		}
		if options.LWS == (schema.Version{}) {
			// Include the comments of the fragments that suppress findings.
			r.Diagnostics = slices.DeleteFunc(r.Diagnostics, func(d schema.Diagnostic) bool { return !strings.HasPrefix(d.Rule, "overlay-") })
			lintOptions.Fragment = true
			for _, f := range fragments {
				found = append(found, lint.Run(f, rules.All(), lintOptions)...)
			}
		}
		r.Diagnostics = schema.SortDiagnostics(append(r.Diagnostics, found...))
	}
	if filter != nil {
		r.Diagnostics = filter(r.Diagnostics)
	}
	return r
}

// blame moves to the change that causes them the diagnostics in found that are in
// the base but that the base alone (before) does not have.
func blame(r overlay.Result, found, before []schema.Diagnostic) []schema.Diagnostic {
	type finding struct {
		rule, message string
		span          schema.Span
	}
	known := map[finding]bool{}
	for _, g := range before {
		known[finding{g.Rule, g.Message, g.Span}] = true
	}
	causes := newCauses(r)
	rest := found[:0]
	for _, g := range found {
		switch {
		case g.Span.Source != r.Document.Source || known[finding{g.Rule, g.Message, g.Span}]:
		case strings.HasPrefix(g.Rule, "unused-"):
			continue // the base uses it
		default:
			c := causes.of(g)
			g.Related = append([]schema.Related{{Span: g.Span, Message: "in the base"}}, g.Related...)
			g.Span, g.Fixes = c.By, nil
		}
		rest = append(rest, g)
	}
	return rest
}

// causes finds the change that causes a diagnostic.
type causes struct {
	view    *schema.Policy // of the result
	changes []overlay.Change
	whole   []*overlay.Change                        // changes to whole definitions
	within  map[*schema.Definition][]*overlay.Change // changes to each definition
}

func newCauses(r overlay.Result) *causes {
	c := &causes{schema.NewPolicy(r.Document), r.Changes, nil, map[*schema.Definition][]*overlay.Change{}}
	for i := range c.changes {
		change := &c.changes[i]
		if change.Key == "" {
			c.whole = append(c.whole, change)
		}
		for _, d := range c.view.Lookup(change.Section, change.Name) {
			c.within[d] = append(c.within[d], change)
		}
	}
	return c
}

// of returns the change that most likely causes g. In order of preference: a change
// to a definition that the message names, to a setting that the message names in
// the definition it is about, to that definition, or any change. If several match,
// it returns the last.
func (c *causes) of(g schema.Diagnostic) *overlay.Change {
	for _, change := range slices.Backward(c.whole) {
		if strings.Contains(g.Message, schema.QuoteName(change.Name)) {
			return change
		}
	}
	var within []*overlay.Change
	for _, d := range c.view.Definitions {
		if holds(d.NameSpan, g.Span) || holds(d.Value.Span, g.Span) {
			within = append(within, c.within[d]...)
		}
	}
	for _, change := range slices.Backward(within) {
		if change.Key != "" && strings.Contains(g.Message, change.Key) {
			return change
		}
	}
	if len(within) > 0 {
		return within[len(within)-1]
	}
	return &c.changes[len(c.changes)-1]
}

// holds reports whether s contains the start of other.
func holds(s, other schema.Span) bool {
	return s.Source == other.Source && s.Start <= other.Start && other.Start < s.End
}
