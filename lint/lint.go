// Package lint checks policies with rules and applies their fixes.
//
// A [Rule] consists of documentation, examples and a function that checks a [Pass].
// The rules of sspolicy are in package lint/rules; [Run] takes any list of rules.
//
//	d := schema.Parse("policy.json", text)
//	for _, g := range lint.Run(d, rules.All(), lint.Options{}) {
//		fmt.Printf("%v: %v: %s [%s]\n", g.Span, g.Severity, g.Message, g.Rule)
//	}
package lint

import (
	"slices"
	"time"

	"github.com/secure-streams/sspolicy/schema"
)

// A Rule describes one kind of mistake.
type Rule struct {
	Name     string          // as in diagnostics: lower-case words joined by "-"
	Severity schema.Severity // of most of its diagnostics
	Summary  string          // one line, without a period
	Why      string          // what the mistake means for the author, in Markdown
	LWS      string          // what lws does, and with which versions this was measured

	// Bad is a policy that breaks the rule. Good does what Bad was meant to do. If
	// Base is not empty, the rule is about fragments: package overlay checks it,
	// and Bad and Good are fragments for the policy Base.
	Base, Bad, Good string

	// LWSOverlay is set if the rule is about the effect of lws's own overlay
	// function on a fragment.
	LWSOverlay bool
	Versions   []schema.Version // of lws, for the examples; nil for the latest

	// Group makes the rule opt-in: Run checks it only if Options.With names the
	// group or the rule. If it is "", Run always checks the rule.
	Group string

	// Firm is set if the rule cannot be suppressed: lws cannot read the policy, or
	// misreads it, whatever overlay is applied.
	Firm bool

	// ParserOnly is set if the rule is about lws's JSON parser alone. Such mistakes
	// do not affect a compiled policy, which holds what the text says.
	ParserOnly bool

	// Fixes says which fixes the rule offers.
	Fixes Fixability

	// Shape is set if Options.Shape does not skip the rule's Check.
	Shape bool

	// Check reports the violations of the rule. It is nil for a rule that the
	// parser, the JSON Schema or the engine checks.
	Check func(*Pass)
}

// Lookup returns the rule of this name, or nil.
func Lookup(rules []*Rule, name string) *Rule {
	if i := slices.IndexFunc(rules, func(r *Rule) bool { return r.Name == name }); i >= 0 {
		return rules[i]
	}
	return nil
}

// Options configure [Run] and [Fix]. The zero value is ready to use.
type Options struct {
	// LWS are the versions of lws that the policy must work with. The default
	// is the latest.
	LWS []schema.Version

	// At is the time at which certificates must be valid. The default is now.
	At time.Time

	// CertWarn is how long before its expiry a certificate is reported.
	CertWarn time.Duration

	// Shape skips the rules about meaning: only syntax, keys, types, ranges and
	// versions are checked.
	Shape bool

	// Fragment marks the document as a fragment for an overlay. Only its shape is
	// checked, and null may stand for what it removes.
	Fragment bool

	// UnsafeFixes makes [Fix] apply all fixes, not only the safe ones.
	UnsafeFixes bool

	// With names the groups, or single rules of groups, to check in addition to the
	// rules without a group.
	With []string

	// Rules are checked in addition to the rules passed to [Run], such as a
	// project's own.
	Rules []*Rule

	unlimited bool // report more than schema.MaxFindings of a rule

	// Filter, if not nil, returns the diagnostics to report.
	Filter func([]schema.Diagnostic) []schema.Diagnostic
}

// selects reports whether the options select a rule.
func (o *Options) selects(r *Rule) bool {
	if (o.Shape || o.Fragment) && r.Check != nil && !r.Shape {
		return false
	}
	return r.Group == "" || slices.Contains(o.With, r.Group) || slices.Contains(o.With, r.Name)
}

// Run checks a document and returns its findings, sorted by position. It is safe
// for concurrent use.
//
// If the text has syntax errors, the rules check the text as it was probably meant
// ([schema.Document.Corrected]), and only syntax errors have fixes. If the errors
// leave its structure in doubt, or the text is not a policy, Run reports only that.
//
// Run returns at most schema.MaxFindings of a rule, and the number of the rest.
func Run(d *schema.Document, rules []*Rule, o Options) []schema.Diagnostic {
	rules = slices.Concat(rules, o.Rules)
	checked := slices.DeleteFunc(slices.Clone(rules), func(r *Rule) bool { return !o.selects(r) })
	found := check(d, checked, o)
	count := map[string]int{}
	for _, g := range found {
		count[g.Rule]++
	}
	s := &suppressor{rules: rules, checked: slices.DeleteFunc(checked, func(r *Rule) bool { return count[r.Name] > schema.MaxFindings })}
	result := schema.SortDiagnostics(s.apply(d.Source, found))
	if o.Filter != nil {
		result = o.Filter(result)
	}
	return result
}

// check returns all findings, including suppressed ones.
func check(d *schema.Document, rules []*Rule, o Options) []*schema.Diagnostic {
	shape := map[string][]*schema.Diagnostic{} // by rule
	add := func(ds []schema.Diagnostic) {
		for i := range ds {
			shape[ds[i].Rule] = append(shape[ds[i].Rule], &ds[i])
		}
	}
	p := newPass(d.Corrected(), o)
	if other := d.NotPolicy(); other != nil {
		add([]schema.Diagnostic{*other})
		rules = slices.DeleteFunc(slices.Clone(rules), func(r *Rule) bool { return r.Check != nil })
	} else if add(slices.Clone(d.Syntax)); d.Damaged() {
		rules = slices.DeleteFunc(slices.Clone(rules), func(r *Rule) bool { return r.Check != nil })
	} else {
		validate := schema.Validate
		switch {
		case o.Fragment:
			validate = schema.ValidateFragment
		case o.unlimited:
			validate = schema.ValidateAll
		}
		valid := validate(p.Document)
		for i := range valid {
			p.locate(d, &valid[i])
		}
		add(valid)
	}
	for _, r := range rules {
		if r.Check == nil {
			p.found = append(p.found, shape[r.Name]...)
			continue
		}
		p.rule = r
		if !o.unlimited {
			p.limit = &schema.Limiter{}
		}
		n := len(p.found)
		r.Check(p)
		if p.limit != nil {
			if rest := p.limit.Rest(); rest != nil {
				p.found = append(p.found, rest)
			}
		}
		for _, g := range p.found[n:] {
			p.locate(d, g)
		}
	}
	return p.found
}
