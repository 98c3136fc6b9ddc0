package lint

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// fixRounds returns how often fixes are applied and the result checked anew. A
// fix may bring to light what another one mends; more than a few rounds are
// needed only by texts that are wrong from end to end, and a large one of those
// is not worth the time.
func fixRounds(size int) int {
	const rounds, bytes = 100, 16 << 20
	return max(5, min(rounds, bytes/max(1, size)))
}

// Fix applies the first fix of every finding that has one, checks the result,
// and so on until nothing is left to fix. Of fixes that would change the same
// text, one is applied in each round. It returns the fixed policy, which is the
// document itself if there was nothing to fix, and how many fixes were applied.
// What is left, in a text that is wrong from end to end, another call may mend.
// Comments and layout outside of what is fixed stay as they are.
func Fix(d *schema.Document, rules []*Rule, o Options) (*schema.Document, int) {
	fixed := 0
	seen := map[string]bool{d.Source.Text: true}
	for range fixRounds(len(d.Source.Text)) {
		var fixes []schema.Fix
		for _, g := range Run(d, rules, o) {
			fixes = append(fixes, g.Fixes[:min(1, len(g.Fixes))]...)
		}
		text, n := Apply(d.Source, fixes...)
		if n == 0 || seen[text] {
			break
		}
		seen[text] = true
		d = schema.Parse(d.Source.Name, []byte(text))
		fixed += n
	}
	return d, fixed
}

// Apply returns the text of a source after fixes, and the number of fixes
// applied. It skips a fix that touches the text of an earlier one.
func Apply(s *schema.Source, fixes ...schema.Fix) (text string, applied int) {
	var edits []schema.Edit // sorted by place
	for _, f := range fixes {
		if with, ok := mergeEdits(edits, s, f.Edits); ok {
			edits = with
			applied++
		}
	}
	var b strings.Builder
	at := 0
	for _, e := range edits {
		b.WriteString(s.Text[at:e.Span.Start])
		b.WriteString(e.NewText)
		at = e.Span.End
	}
	b.WriteString(s.Text[at:])
	return b.String(), applied
}

// mergeEdits puts edits among others, if none of them touches the text of another.
// Insertions at the same place do.
func mergeEdits(among []schema.Edit, s *schema.Source, edits []schema.Edit) ([]schema.Edit, bool) {
	at := make([]int, len(edits))
	for i, e := range edits {
		n, same := slices.BinarySearchFunc(among, e, func(a, b schema.Edit) int { return a.Span.Start - b.Span.Start })
		if same || e.Span.Source != s ||
			n > 0 && among[n-1].Span.End > e.Span.Start ||
			n < len(among) && among[n].Span.Start < e.Span.End {
			return among, false
		}
		at[i] = n
	}
	for i, e := range edits { // each one moves the place of those behind it
		among = slices.Insert(among, at[i]+i, e)
	}
	return among, true
}
