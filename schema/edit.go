package schema

import (
	"slices"
	"strings"
)

// A Fix is a set of edits that resolves a diagnostic.
type Fix struct {
	Message string // what the fix does, such as "remove the comma"
	Edits   []Edit // sorted by position, not overlapping

	// Safe is set if the author undoubtedly meant the fix: it removes nothing that
	// the author wrote, and lws keeps the same values, or those that the message
	// names.
	Safe bool
}

// An Edit replaces the text of a span.
type Edit struct {
	Span    Span
	NewText string
}

// newFix returns a safe fix of one edit.
func newFix(message string, at Span, text string) Fix {
	return Fix{Message: message, Edits: []Edit{{at, text}}, Safe: true}
}

// ApplyEdits returns the text of s after edits, which must be sorted by position
// and must not overlap.
func ApplyEdits(s *Source, edits []Edit) string {
	var b strings.Builder
	at := 0
	for _, e := range edits {
		b.WriteString(s.Text[at:e.Span.Start])
		b.WriteString(e.NewText)
		at = e.Span.End
	}
	b.WriteString(s.Text[at:])
	return b.String()
}

// MergeEdits merges edits into others; both are sorted by position. It returns
// others and false if two edits touch: they overlap, or insert at the same place.
func MergeEdits(others, edits []Edit) ([]Edit, bool) {
	at := make([]int, len(edits))
	for i, e := range edits {
		n, same := slices.BinarySearchFunc(others, e, func(a, b Edit) int { return a.Span.Start - b.Span.Start })
		if same || n > 0 && others[n-1].Span.End > e.Span.Start || n < len(others) && others[n].Span.Start < e.Span.End ||
			i > 0 && edits[i-1].Span.End > e.Span.Start {
			return others, false
		}
		at[i] = n
	}
	for i, e := range edits { // each edit shifts those after it
		others = slices.Insert(others, at[i]+i, e)
	}
	return others, true
}

// OriginalSpan maps a span of the text after edits to src, the source before them. A
// span inside new text becomes the text that the edit replaced.
func OriginalSpan(src *Source, edits []Edit, s Span) Span {
	place := func(offset int, isEnd bool) int {
		moved := 0 // by the edits before offset
		for _, e := range edits {
			start := e.Span.Start + moved // in the new text
			end := start + len(e.NewText)
			switch {
			case offset < start, offset == start && isEnd:
				return offset - moved
			case offset < end && !isEnd:
				return e.Span.Start
			case offset <= end && isEnd:
				return e.Span.End
			}
			moved += end - start - (e.Span.End - e.Span.Start)
		}
		return offset - moved
	}
	start := place(s.Start, false)
	return Span{src, start, max(start, place(s.End, true))}
}
