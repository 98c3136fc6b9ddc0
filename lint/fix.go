package lint

import (
	"cmp"
	"slices"

	"github.com/secure-streams/sspolicy/schema"
)

// A Fixability says which fixes a rule offers.
type Fixability string

// The kinds of fixes. [Fix] applies unsafe ones only with Options.UnsafeFixes.
const (
	NoFix     Fixability = ""
	SafeFix   Fixability = "safe"
	UnsafeFix Fixability = "unsafe"
	MixedFix  Fixability = "mixed" // some safe, some not
)

// Fix applies fixes of the findings of [Run] until none is left. It returns the
// fixed policy, or d itself if there is nothing to fix, and the diagnostics that it
// fixed, each with only the applied fix, at their positions in d.
//
// Only safe fixes are applied, unless o.UnsafeFixes is set. No two fixes of a round
// touch the same bytes. A fix is applied only if the result has fewer findings and
// no new one, compared by rule and position; an info that an error or a warning may
// have hidden does not count as new. Fixing the result again changes nothing.
// Comments and layout stay as they are.
func Fix(d *schema.Document, rules []*Rule, o Options) (*schema.Document, []schema.Diagnostic) {
	o.unlimited = true // a finding beyond the limit must not count as new later
	f := &fixer{rules: rules, o: o}
	cur := &state{doc: d, found: f.run(d)}
	first := places(slices.Clone(cur.found))
	var fixed []schema.Diagnostic
	for {
		f.runs = max(10, min(60, (16<<20)/max(1, len(d.Source.Text))))
		if schema.HasErrors(cur.doc.Syntax) {
			f.runs = 10 // each may search for corrections
		}
		next := f.try(cur, f.plan(cur.found))
		if next == nil {
			break
		}
		for _, g := range next.fixed {
			g.Span = first.place(g, cur.original(d.Source, g.Span))
			fixed = append(fixed, g)
		}
		next.steps = slices.Concat(cur.steps, next.steps)
		cur = next
	}
	return cur.doc, schema.SortDiagnostics(fixed)
}

// places holds the findings whose fixes have not been applied yet.
type places []schema.Diagnostic

// place returns the original position of a finding that is probably at a span. If a
// fix moved the finding together with other text, the position is that of a finding
// with the same message.
func (p *places) place(g schema.Diagnostic, at schema.Span) schema.Span {
	same := func(first schema.Diagnostic) bool { return first.Rule == g.Rule && first.Message == g.Message }
	i := slices.IndexFunc(*p, func(first schema.Diagnostic) bool { return same(first) && first.Span == at })
	if i < 0 {
		i = slices.IndexFunc(*p, same)
	}
	if i < 0 {
		return at
	}
	at = (*p)[i].Span
	*p = slices.Delete(*p, i, i+1)
	return at
}

// A fixer applies fixes to a document.
type fixer struct {
	rules []*Rule
	o     Options
	runs  int // calls of Run left in the round, fewer for a large text
}

// A state is a document and the findings in it.
type state struct {
	doc   *schema.Document
	found []schema.Diagnostic
	steps []step              // edits that led to doc
	fixed []schema.Diagnostic // in the last round
}

// severe returns the number of errors and warnings.
func (s *state) severe() (n int) {
	for _, g := range s.found {
		if g.Severity > schema.Info {
			n++
		}
	}
	return n
}

// harmless reports whether fresh, the findings that before lacks, are acceptable:
// there are none, or only infos that an error or a warning in before has hidden.
func (s *state) harmless(before *state, fresh []schema.Diagnostic) bool {
	worst, found := schema.Worst(fresh)
	return !found || worst == schema.Info && s.severe() < before.severe()
}

// A step is a set of edits of a source.
type step struct {
	src   *schema.Source
	edits []schema.Edit
}

// original maps a span of the state's document to the document before its steps.
func (s *state) original(first *schema.Source, at schema.Span) schema.Span {
	for _, st := range slices.Backward(s.steps) {
		at = schema.OriginalSpan(st.src, st.edits, at)
	}
	at.Source = first
	return at
}

func (f *fixer) run(d *schema.Document) []schema.Diagnostic {
	f.runs--
	return Run(d, f.rules, f.o)
}

// A candidate is the fix of a diagnostic.
type candidate struct {
	of  schema.Diagnostic
	fix schema.Fix
}

// plan returns the first applicable fix of each diagnostic.
func (f *fixer) plan(found []schema.Diagnostic) []candidate {
	var plan []candidate
	for _, g := range found {
		i := slices.IndexFunc(g.Fixes, func(x schema.Fix) bool { return x.Safe || f.o.UnsafeFixes })
		if i >= 0 {
			plan = append(plan, candidate{g, g.Fixes[i]})
		}
	}
	return plan
}

// apply applies the fixes of a plan, except those that touch an earlier one.
func (f *fixer) apply(s *state, plan []candidate) *state {
	var edits []schema.Edit
	next := &state{}
	for _, p := range plan {
		if with, ok := schema.MergeEdits(edits, p.fix.Edits); ok && !foreign(p.fix, s.doc.Source) {
			edits = with
			p.of.Fixes = []schema.Fix{p.fix}
			next.fixed = append(next.fixed, p.of)
		}
	}
	if len(edits) == 0 {
		return nil
	}
	text := schema.ApplyEdits(s.doc.Source, edits)
	if len(text) > schema.MaxSize {
		return nil
	}
	next.doc = schema.Parse(s.doc.Source.Name, []byte(text))
	next.found = f.run(next.doc)
	next.steps = []step{{s.doc.Source, edits}}
	return next
}

// foreign reports whether a fix edits another source, such as a fragment.
func foreign(x schema.Fix, src *schema.Source) bool {
	return slices.ContainsFunc(x.Edits, func(e schema.Edit) bool { return e.Span.Source != src })
}

// followUps limits how often a fix may be followed by fixes of the findings that it
// reveals.
const followUps = 3

// try applies a plan or, if that does harm, the part of it that does not.
func (f *fixer) try(s *state, plan []candidate) *state {
	if len(plan) == 0 || f.runs <= 0 {
		return nil
	}
	next := f.apply(s, plan)
	for n := 0; next != nil && f.runs > 0; n++ {
		fresh := introduced(s, next)
		better := cmp.Or(cmp.Compare(next.severe(), s.severe()), cmp.Compare(len(next.found), len(s.found))) < 0
		if better && next.harmless(s, fresh) && errors(next.doc) <= errors(s.doc) {
			return next
		}
		more := f.plan(fresh)
		if n == followUps || len(more) == 0 {
			break
		}
		after := f.apply(next, more)
		if after == nil {
			break
		}
		for i := range after.fixed {
			after.fixed[i].Span = next.original(s.doc.Source, after.fixed[i].Span)
		}
		after.fixed = slices.Concat(next.fixed, after.fixed)
		after.steps = slices.Concat(next.steps, after.steps)
		next = after
	}
	if len(plan) == 1 {
		return nil
	}
	if done := f.try(s, plan[:len(plan)/2]); done != nil {
		return done
	}
	return f.try(s, plan[len(plan)/2:])
}

func errors(d *schema.Document) (n int) {
	for _, g := range d.Syntax {
		if g.Severity == schema.Error {
			n++
		}
	}
	return n
}

// introduced returns the findings of after that before lacks: neither at the same
// position nor at the same text, which may have moved, does before have a finding
// of the same rule.
func introduced(before, after *state) []schema.Diagnostic {
	type place struct {
		rule  string
		start int
	}
	exact := map[place]int{} // unmatched findings of before
	for _, g := range before.found {
		exact[place{g.Rule, g.Span.Start}]++
	}
	var left []schema.Diagnostic
	for _, g := range after.found {
		at := place{g.Rule, after.original(before.doc.Source, g.Span).Start}
		if exact[at] == 0 {
			left = append(left, g)
			continue
		}
		exact[at]--
	}
	if len(left) == 0 {
		return nil
	}
	old := map[string][]schema.Diagnostic{} // by rule
	for _, g := range before.found {
		if at := (place{g.Rule, g.Span.Start}); exact[at] > 0 {
			exact[at]--
			old[g.Rule] = append(old[g.Rule], g)
		}
	}
	return slices.DeleteFunc(left, func(g schema.Diagnostic) bool {
		at, text := after.original(before.doc.Source, g.Span), g.Span.Text()
		i := slices.IndexFunc(old[g.Rule], func(was schema.Diagnostic) bool {
			return was.Span.Start <= at.End && at.Start <= was.Span.End || was.Span.Text() == text
		})
		if i >= 0 {
			old[g.Rule] = slices.Delete(old[g.Rule], i, i+1)
		}
		return i >= 0
	})
}
