package sim

import (
	"regexp"
	"slices"
	"testing"
)

var digits = regexp.MustCompile(`^\S+ at \S+ |[0-9]+`)

// shape returns a finding without the parts that may differ when events are missing.
func shape(finding string) string { return digits.ReplaceAllString(finding, "") }

// shrink returns a run with a minimal set of events that breaks the first law that o
// breaks: none of its events can be removed.
func shrink(t *testing.T, pr *protocol, seed uint64, minutes int, o *outcome) *outcome {
	want := shape(o.findings[0])
	for size := (len(o.plan.events) + 1) / 2; size > 0; {
		smaller := false
		for at := 0; at < len(o.plan.events); {
			var without []int
			for i, e := range o.plan.events {
				if i < at || i >= at+size {
					without = append(without, e.number)
				}
			}
			again := simulate(t, pr, seed, minutes, func(e *event) bool { return slices.Contains(without, e.number) })
			if slices.ContainsFunc(again.findings, func(f string) bool { return shape(f) == want }) {
				o, smaller = again, true
			} else {
				at += size
			}
		}
		if size > 1 {
			size = (size + 1) / 2
		} else if !smaller {
			break
		}
	}
	return o
}
