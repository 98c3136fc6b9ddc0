package extract

import (
	"fmt"
	"slices"

	"github.com/secure-streams/sspolicy/schema"
)

// Fix applies the fixes of the diagnostics that find returns for each policy of a file:
// only safe ones, unless unsafe is set. It returns the fixed text of the file and the
// diagnostics that it fixed, each with only the applied fix.
//
// Fixes that do not touch each other are applied together if each removes one finding and
// no rule has more findings afterwards, and otherwise in smaller sets. Each attempt checks
// the whole file, so the number of attempts is limited, especially for a large file.
func Fix(file string, text []byte, o Options, unsafe bool, find func(*Policy) []schema.Diagnostic) (string, []schema.Diagnostic) {
	all := func(text string) (found []schema.Diagnostic) {
		for _, p := range Policies(file, []byte(text), o) {
			found = append(found, find(p)...)
		}
		return schema.SortDiagnostics(found)
	}
	attempts := max(20, min(200, (16<<20)/max(1, len(text))))
	cur := string(text)
	found := all(cur)
	var fixed []schema.Diagnostic
	refused := map[string]bool{}
	key := func(g schema.Diagnostic) string { return fmt.Sprint(g.Rule, g.Message, g.Span.Start) }

	// try applies a plan, or otherwise a half of it that can be applied.
	var try func(plan []schema.Diagnostic) bool
	try = func(plan []schema.Diagnostic) bool {
		if len(plan) == 0 || attempts == 0 {
			return false
		}
		var edits []schema.Edit
		var done []schema.Diagnostic
		for _, g := range plan {
			if merged, ok := schema.MergeEdits(edits, g.Fixes[0].Edits); ok {
				edits, done = merged, append(done, g)
			}
		}
		if len(done) > 0 {
			attempts--
			after := schema.ApplyEdits(done[0].Span.Source, edits)
			if left := all(after); better(found, left, len(done)) {
				cur, found, fixed = after, left, append(fixed, done...)
				return true
			}
		}
		if len(plan) == 1 {
			refused[key(plan[0])] = true
			return false
		}
		half := len(plan) / 2
		return try(plan[:half]) || try(plan[half:])
	}
	for again := true; again; {
		var plan []schema.Diagnostic
		for _, g := range found {
			i := slices.IndexFunc(g.Fixes, func(f schema.Fix) bool { return f.Safe || unsafe })
			if i >= 0 && !refused[key(g)] {
				g.Fixes = g.Fixes[i : i+1]
				plan = append(plan, g)
			}
		}
		again = try(plan)
	}
	return cur, fixed
}

// better reports whether there are at least n fewer findings, and no rule has more.
func better(before, after []schema.Diagnostic, n int) bool {
	count := map[string]int{}
	for _, g := range before {
		count[g.Rule]++
	}
	for _, g := range after {
		if count[g.Rule]--; count[g.Rule] < 0 {
			return false
		}
	}
	return len(after)+n <= len(before)
}
