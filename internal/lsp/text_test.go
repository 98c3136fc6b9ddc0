package lsp

import (
	"strings"
	"testing"
	"unicode/utf16"
)

func TestPositions(t *testing.T) {
	const s = "\ufeffa\r\n" + // a byte order mark is a code unit
		"x\U0001F600y\n" + // an emoji is two
		"e\u0301z\r" + // a combining character is one
		"\n\r\n" +
		"end"
	for _, c := range []struct {
		line, character uint32
		before          string // the text up to the position
	}{
		{0, 0, ""}, {0, 1, "\ufeff"}, {0, 2, "\ufeffa"},
		{0, 9, "\ufeffa"}, // beyond the end of the line, before its \r\n
		{1, 1, "\ufeffa\r\nx"}, {1, 3, "\ufeffa\r\nx\U0001F600"},
		{1, 2, "\ufeffa\r\nx"}, // inside a surrogate pair
		{2, 2, "\ufeffa\r\nx\U0001F600y\ne\u0301"},
		{2, 3, "\ufeffa\r\nx\U0001F600y\ne\u0301z"},
		{4, 3, s}, {4, 0, strings.TrimSuffix(s, "end")}, {99, 7, s},
	} {
		text := newText(s)
		if got := text.content[:text.offset(Position{c.line, c.character})]; got != c.before {
			t.Errorf("%d:%d: got %q, want %q", c.line, c.character, got, c.before)
		}
	}
}

// FuzzText checks that positions are in UTF-16, and that an edit at positions equals the
// edit at their offsets.
func FuzzText(f *testing.F) {
	f.Add("a\r\n\U0001F600b\rc\n", "x\n", 2, 5)
	f.Add("\ufeff{}", "\r", 0, 3)
	f.Add(strings.Repeat("é\U0001F600x", 700), "é", 3, 1500)
	f.Fuzz(func(t *testing.T, s, with string, start, end int) {
		s, with = strings.ToValidUTF8(s, "?"), strings.ToValidUTF8(with, "?")
		text := newText(s)
		line, units := uint32(0), uint32(0)
		var ends []int // the offsets of all characters
		for i, r := range s {
			if got := text.position(i); got != (Position{line, units}) {
				t.Fatalf("%q: position of %d is %v, want %d:%d", s, i, got, line, units)
			}
			if got := text.offset(Position{line, units}); got != i && !(r == '\n' && i > 0 && s[i-1] == '\r') {
				t.Fatalf("%q: offset of %d:%d is %d, want %d", s, line, units, got, i)
			}
			ends = append(ends, i)
			units += uint32(utf16.RuneLen(r))
			if r == '\n' || r == '\r' && !strings.HasPrefix(s[i+1:], "\n") {
				line, units = line+1, 0
			}
		}
		ends = append(ends, len(s))
		start, end = ends[uint(start)%uint(len(ends))], ends[uint(end)%uint(len(ends))]
		start, end = min(start, end), max(start, end)
		for _, at := range []int{start, end} {
			if at > 0 && at < len(s) && s[at-1] == '\r' && s[at] == '\n' {
				return // there is no position between them
			}
		}
		r := text.span(start, end)
		if got, want := text.apply(contentChange{&r, with}).content, s[:start]+with+s[end:]; got != want {
			t.Fatalf("%q: %q in place of %d to %d makes %q, want %q", s, with, start, end, got, want)
		}
	})
}
