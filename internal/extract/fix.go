package extract

import (
	"fmt"
	"slices"

	"github.com/secure-streams/sspolicy/schema"
)

// Fix applies the fixes of what find returns for each policy of a file, one after the
// other: only safe ones, unless unsafe is set. A fix whose result has not less findings,
// or one of a rule that had fewer, is not applied. It returns the text of the file
// afterwards, and what it fixed.
func Fix(file string, text []byte, o Options, unsafe bool, find func(*Policy) []schema.Diagnostic) (string, []schema.Diagnostic) {
	all := func(text string) (found []schema.Diagnostic) {
		for _, p := range Policies(file, []byte(text), o) {
			found = append(found, find(p)...)
		}
		return schema.SortDiagnostics(found)
	}
	var fixed []schema.Diagnostic
	refused := map[string]bool{}
	cur := string(text)
	found := all(cur)
	for again := true; again; {
		again = false
		for _, g := range found {
			i := slices.IndexFunc(g.Fixes, func(f schema.Fix) bool { return f.Safe || unsafe })
			if i < 0 {
				continue
			}
			key := fmt.Sprint(g.Rule, g.Message, g.Span.Start)
			if refused[key] {
				continue
			}
			after := schema.ApplyEdits(g.Span.Source, g.Fixes[i].Edits)
			left := all(after)
			if !better(found, left) {
				refused[key] = true
				continue
			}
			g.Fixes = g.Fixes[i : i+1]
			fixed = append(fixed, g)
			cur, found, again = after, left, true
			break
		}
	}
	return cur, fixed
}

// better reports whether there are less findings, and not more of any rule.
func better(before, after []schema.Diagnostic) bool {
	count := map[string]int{}
	for _, g := range before {
		count[g.Rule]++
	}
	for _, g := range after {
		if count[g.Rule]--; count[g.Rule] < 0 {
			return false
		}
	}
	return len(after) < len(before)
}
