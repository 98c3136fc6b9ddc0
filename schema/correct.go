package schema

import (
	"cmp"
	"slices"
	"strings"
)

// maxCorrections is the maximum number of mistakes corrected in a text.
const maxCorrections = 20

// The limits of the search for corrections in a text.
const (
	searchBudget = 16 << 20 // bytes to parse
	searchTries  = 3000     // candidates

	diagnosticCost = 64 // bytes parsed in the time that a diagnostic takes
)

// correct searches for the mistakes behind the syntax errors of a document: edits
// of a character or a word after which the text parses. If one mistake explains the
// errors better than all others, it replaces them in d.Syntax. The remaining errors
// lose their fixes, whose effect is unknown.
//
// This is minimum-distance error correction (Aho and Peterson, 1972), one mistake
// at a time, limited to the neighbourhood of the first error. Among corrections
// that make the text parse, it prefers fewer edits, then fewer findings of the JSON
// Schema. If the best corrections differ in meaning, it applies none.
func correct(d *Document, p *parser) {
	c := &corrector{src: d.Source, budget: searchBudget, tries: searchTries}
	cur := d
	var start *Document // before the first correction by furthest
	sure := 0           // number of corrections before it
	for range maxCorrections {
		if !HasErrors(cur.Syntax) {
			break
		}
		found := c.search(cur, p)
		if found == nil {
			break
		}
		if found.furthest && start == nil {
			start, sure = cur, len(c.steps)
		}
		c.steps = append(c.steps, *found)
		cur, p = parse(&Source{Name: d.Source.Name, Template: d.Source.Template, Text: ApplyEdits(cur.Source, found.edits)})
	}
	if start != nil && (HasErrors(cur.Syntax) || hasStray(cur)) {
		cur, c.steps = start, c.steps[:sure]
	}
	rest := slices.Clone(cur.Syntax)
	for i, g := range rest {
		rest[i] = c.origin(len(c.steps), g)
		if HasErrors(cur.Syntax) {
			rest[i].Fixes = nil
		}
	}
	if fixes := c.mistakes(); c.consistent(fixes, cur.Source.Text) {
		d.Syntax = SortDiagnostics(append(fixes, rest...))
		d.corrected, d.corrector = cur, c
		d.Source.Comments = nil
		for _, s := range cur.Source.Comments {
			d.Source.Comments = append(d.Source.Comments, c.original(len(c.steps), s))
		}
		return
	}
	for i := range d.Syntax {
		d.Syntax[i].Fixes = nil
	}
}

// Corrected returns the document as it was probably meant: with the fixes of
// d.Syntax applied, or d itself if d.Syntax has no errors with fixes.
// [Document.Origin] maps its spans to the source of d.
func (d *Document) Corrected() *Document {
	if d.corrected == nil {
		return d
	}
	return d.corrected
}

// Origin returns the span in the source of d of a span of d.Corrected().
func (d *Document) Origin(s Span) Span {
	if d.corrector == nil || s.Source != d.corrected.Source {
		return s
	}
	return d.corrector.original(len(d.corrector.steps), s)
}

// A corrector holds the mistakes found so far. The position of each is in the text
// with all previous ones corrected.
type corrector struct {
	src    *Source
	steps  []correction
	budget int // bytes left to parse
	tries  int // candidates left to try
}

// A correction is a way to fix the first error of a text.
type correction struct {
	src     *Source // before the edits
	edits   []Edit
	found   []Diagnostic // the mistakes; the edits are their fixes
	errors  int          // errors left
	fixable bool         // the parser has a fix for every error left
	shape   int          // findings of the JSON Schema left, minus the known keys
	means   string       // the values, without white space and comments

	furthest bool // from furthest: valid only if all later mistakes are found
}

// original maps a span of the text after n steps to the source.
func (c *corrector) original(n int, s Span) Span {
	for n--; n >= 0; n-- {
		s = OriginalSpan(c.steps[n].src, c.steps[n].edits, s)
	}
	s.Source = c.src
	return s
}

// origin maps the positions of a diagnostic of the text after n steps to the
// source.
func (c *corrector) origin(n int, g Diagnostic) Diagnostic {
	g.Span = c.original(n, g.Span)
	g.Related = slices.Clone(g.Related)
	for i := range g.Related {
		g.Related[i].Span = c.original(n, g.Related[i].Span)
	}
	g.Fixes = slices.Clone(g.Fixes)
	for i := range g.Fixes {
		edits := slices.Clone(g.Fixes[i].Edits)
		for j := range edits {
			edits[j].Span = c.original(n, edits[j].Span)
		}
		g.Fixes[i].Edits = edits
	}
	return g
}

// mistakes returns the diagnostics of all steps, with positions in the source.
func (c *corrector) mistakes() []Diagnostic {
	var ds []Diagnostic
	for n, step := range c.steps {
		for _, g := range step.found {
			ds = append(ds, c.origin(n, g))
		}
	}
	return ds
}

// consistent reports whether applying the fixes of ds to the source gives want.
func (c *corrector) consistent(ds []Diagnostic, want string) bool {
	var edits []Edit
	for _, g := range ds {
		var ok bool
		if edits, ok = MergeEdits(edits, g.Fixes[0].Edits); !ok {
			return false
		}
	}
	return ApplyEdits(c.src, edits) == want
}

// search returns the correction of the first error that is better than all others,
// or nil.
func (c *corrector) search(d *Document, p *parser) *correction {
	if c.budget < 0 {
		return nil
	}
	local := c.local(d)
	if local != nil && local.errors == 0 && !p.guessed {
		return local
	}
	i := slices.IndexFunc(p.diags, isError)
	first := p.diags[i]
	var all []correction
	tried := candidates(d, first, p.around[i])
	const copies = 16 // how many times cheaper copying a text is than parsing it
	if c.tries -= len(tried); c.tries < 0 || len(tried)*len(d.Source.Text)/copies > c.budget {
		tried = nil
	}
	progress := make([]int, len(tried)) // how far the parser gets with each
	for i, g := range tried {
		var r *correction
		if r, progress[i] = c.tryClean(d, g); r != nil {
			all = append(all, *r)
		}
		if c.budget < 0 {
			return nil // the best one may be among the rest
		}
	}
	if len(all) == 0 {
		all = c.partial(d, first, tried)
	}
	further := len(all) == 0
	if further {
		all = c.furthest(d, first, tried, progress)
	}
	best := unique(all)
	if best != nil {
		best.furthest = further
	}
	if best != nil && len(best.edits) == 1 && count(d) == 1 && best.edits[0].Span == first.Span {
		first.Fixes = best.found[0].Fixes // the parser's message is more specific
		best.found = []Diagnostic{first}
	}
	return best
}

// partial returns the corrections after which the parser has a fix for all
// remaining errors. If there are none, it returns the parser's own fix of the first
// error, provided that no candidate leaves fewer errors.
func (c *corrector) partial(d *Document, first Diagnostic, tried []Diagnostic) (all []correction) {
	least := count(d)
	plain := len(first.Fixes) > 0 && !editsBracket(first.Fixes[0].Edits[0])
	for _, g := range tried {
		if c.budget < 0 {
			return nil
		}
		if e := g.Fixes[0].Edits[0]; plain && e.NewText != `"` && e.Span.Text() != `"` {
			continue // a bracket may also be missing after the error
		}
		if r := c.try(d, g); r.fixable {
			all = append(all, *r)
		} else {
			least = min(least, r.errors)
		}
	}
	if len(all) > 0 || !plain {
		return all
	}
	if r := c.try(d, first); r.errors < count(d) && r.errors <= least {
		return []correction{*r}
	}
	return nil
}

// furthest returns the insertions and removals of a quotation mark that let the
// parser get furthest, past the line of the first error, where it meets another
// mistake. They are valid only if that mistake is found too.
func (c *corrector) furthest(d *Document, first Diagnostic, tried []Diagnostic, progress []int) (all []correction) {
	line, start := d.Source.Line(first.Span.Start)
	most := start + len(line) + 1
	for i, g := range tried {
		if e := g.Fixes[0].Edits[0]; e.NewText != `"` && e.Span.Text() != `"` || progress[i] < most {
			continue
		}
		if progress[i] > most {
			most, all = progress[i], nil
		}
		if c.budget < 0 {
			return nil
		}
		if r := c.try(d, g); r.errors < count(d) {
			all = append(all, *r)
		}
	}
	return all
}

// editsBracket reports whether an edit adds or removes a bracket.
func editsBracket(e Edit) bool { return strings.ContainsAny(e.NewText+e.Span.Text(), "{}[]") }

// compare returns -1 if r is a better explanation than o, 1 if o is better, and 0
// if they are equally good.
func (r *correction) compare(o *correction) int {
	return cmp.Or(cmp.Compare(len(r.edits)+r.errors, len(o.edits)+o.errors), cmp.Compare(r.shape, o.shape))
}

// removes reports whether a correction removes text that the author wrote.
func (r *correction) removes() bool {
	return slices.ContainsFunc(r.edits, func(e Edit) bool { return e.Span.End-e.Span.Start > len(e.NewText) })
}

// unique returns the best correction, or nil if an equally good one differs in
// meaning. It returns one that removes text only if no other is possible.
func unique(all []correction) *correction {
	adding, removing := best(all, false), best(all, true)
	switch {
	case adding == nil:
		adding = removing
	case removing != nil && adding.compare(removing) > 0:
		return nil
	}
	for i := range all {
		if r := &all[i]; adding.removes() == r.removes() && adding.compare(r) == 0 && adding.means != r.means {
			return nil
		}
	}
	return adding
}

// best returns the best correction among those that remove text, or among those
// that do not.
func best(all []correction, removes bool) (best *correction) {
	for i := range all {
		if r := &all[i]; r.removes() == removes && (best == nil || r.compare(best) < 0) {
			best = r
		}
	}
	return best
}

func isError(g Diagnostic) bool { return g.Severity == Error }

func count(d *Document) (remaining int) {
	for _, g := range d.Syntax {
		if isError(g) {
			remaining++
		}
	}
	return remaining
}

// local returns the correction that consists of the parser's own fixes, or nil if
// the parser does not have one for every error.
func (c *corrector) local(d *Document) *correction {
	errs := slices.DeleteFunc(slices.Clone(d.Syntax), func(g Diagnostic) bool { return !isError(g) })
	if slices.ContainsFunc(errs, func(g Diagnostic) bool { return len(g.Fixes) == 0 }) {
		return nil
	}
	return c.try(d, errs...)
}

// try applies the fixes of ds, then the parser's own fixes in the result. It
// returns nil if two of them touch.
func (c *corrector) try(d *Document, ds ...Diagnostic) *correction {
	r := &correction{src: d.Source, found: ds}
	for _, g := range ds {
		var ok bool
		if r.edits, ok = MergeEdits(r.edits, g.Fixes[0].Edits); !ok {
			return nil
		}
	}
	after, p := parse(&Source{Name: d.Source.Name, Template: d.Source.Template, Text: ApplyEdits(d.Source, r.edits)})
	c.budget -= len(d.Source.Text) + diagnosticCost*len(after.Syntax)
	r.errors = count(after)
	r.fixable = !p.guessed && !slices.ContainsFunc(after.Syntax, func(g Diagnostic) bool { return isError(g) && len(g.Fixes) == 0 })
	r.weigh(after)
	return r
}

// weigh sets the shape and means of a correction from its result.
func (r *correction) weigh(after *Document) {
	r.means = compact(&after.Root)
	r.shape = len(Validate(after)) + padded(&after.Root) - NewPolicy(after).known()
}

// hasStray reports whether a document has an extra bracket that lws ignores.
func hasStray(d *Document) bool {
	return slices.ContainsFunc(d.Syntax, func(g Diagnostic) bool {
		return g.Rule == RuleLaxSyntax && len(g.Fixes) > 0 && editsBracket(g.Fixes[0].Edits[0])
	})
}

// unclean is the panic value of a clean parser at an error.
type unclean struct{}

// tryClean applies the fix of g. If the result has an error, it returns nil and the
// offset that the parser reached, in the text before the fix.
func (c *corrector) tryClean(d *Document, g Diagnostic) (r *correction, progress int) {
	src := &Source{Name: d.Source.Name, Template: d.Source.Template, Text: ApplyEdits(d.Source, g.Fixes[0].Edits)}
	p := &parser{src: src, text: src.Text, clean: true}
	defer func() {
		c.budget -= p.pos
		if e := recover(); e != nil {
			if _, ok := e.(unclean); !ok {
				panic(e)
			}
			r, progress = nil, p.pos-(len(src.Text)-len(d.Source.Text))
		}
	}()
	after := &Document{Source: src}
	p.document(after)
	r = &correction{src: d.Source, edits: g.Fixes[0].Edits, found: []Diagnostic{g}}
	if after.Syntax = p.diags; r.removes() && hasStray(after) {
		return nil, 0 // if one bracket is missing, another is extra
	}
	r.weigh(after)
	return r, len(d.Source.Text)
}

// known counts the definitions of a policy and their settings.
func (p *Policy) known() int {
	n := len(p.Definitions)
	for _, d := range p.Definitions {
		for _, s := range d.Settings {
			if s.Key != nil {
				n++
			}
		}
	}
	return n
}

// padded counts the strings that probably end on the wrong side of a space: those
// that start with one, and those that end with one before a closing bracket whose
// opening bracket is followed by a space.
func padded(v *Value) (n int) {
	leading := func(k Kind, text string) {
		if k == String && strings.HasPrefix(text, " ") {
			n++
		}
	}
	trailing := func(last *Value, first string) {
		if text := last.Text(); last.Kind == String && last.After == "" && strings.HasPrefix(first, " ") &&
			strings.HasSuffix(text, " ") && !strings.HasSuffix(text, "  ") {
			n++
		}
	}
	leading(v.Kind, v.Text())
	if ms := v.Members(); len(ms) > 0 {
		trailing(&ms[len(ms)-1].Value, ms[0].Name.Before)
		for _, m := range ms {
			leading(m.NameKind, m.Key)
			n += padded(&m.Value)
		}
	}
	if es := v.Elems(); len(es) > 0 {
		trailing(&es[len(es)-1].Value, es[0].Value.Before)
		for _, e := range es {
			n += padded(&e.Value)
		}
	}
	return n
}

// compact returns a value without white space and comments.
func compact(v *Value) string {
	var b strings.Builder
	writeInline(&b, v, "")
	return b.String()
}
