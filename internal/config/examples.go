package config

import (
	"fmt"
	"time"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// An Outcome is the result of checking an example of a rule.
type Outcome struct {
	Name    string      // such as "good 1"
	At      schema.Span // of the example
	Problem string      // "" if the example behaves as expected
}

// Test runs a rule on its examples: one under "good" must have no finding, one under "bad"
// at least one. Certificates must be valid at the given time; zero means now.
func (r *OwnRule) Test(at time.Time) (all []Outcome) {
	run := func(kind string, docs []*schema.Document, want bool) {
		for i, d := range docs {
			o := Outcome{Name: fmt.Sprintf("%s %d", kind, i+1), At: d.Root.Span}
			o.At.End = o.At.Start + 1
			found, problem := r.try(d, at)
			switch {
			case problem != nil:
				o.At, o.Problem = problem.Span, "the example has a mistake: "+problem.Message
			case want && len(found) == 0:
				o.Problem = "the rule finds nothing"
			case !want && len(found) > 0:
				o.At, o.Problem = found[0].Span, "the rule finds: "+found[0].Message
			}
			all = append(all, o)
		}
	}
	run("good", r.Good, false)
	run("bad", r.Bad, true)
	return all
}

// try returns the findings of the rule in an example, or why that is not a policy.
func (r *OwnRule) try(d *schema.Document, at time.Time) (found []schema.Diagnostic, problem *schema.Diagnostic) {
	o := lint.Options{LWS: r.Versions.Versions(), At: at}
	shape := o
	shape.Shape, shape.LWS = true, nil
	for _, g := range lint.Run(d, rules.All(), shape) {
		if g.Severity == schema.Error {
			return nil, &g
		}
	}
	return lint.Run(d, []*lint.Rule{r.Rule}, o), nil
}
