package lsp

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// A text is a version of a document. As in LSP, lines end in \n, \r\n or \r, and columns
// count UTF-16 code units.
type text struct {
	content string
	lines   []int  // offset of the start of each line
	marks   []mark // one about every markDistance bytes; the first is at 0
}

func newText(content string) *text {
	t := &text{content: content, lines: make([]int, 1, 1+strings.Count(content, "\n")), marks: make([]mark, 1, 1+len(content)/markDistance)}
	units := 0
	for i, r := range content {
		if i >= len(t.marks)*markDistance {
			t.marks = append(t.marks, mark{i, units})
		}
		units += utf16Units(r)
	}
	for at := 0; ; {
		i := strings.IndexAny(content[at:], "\r\n")
		if i < 0 {
			return t
		}
		at += i + 1
		if content[at-1] == '\r' && strings.HasPrefix(content[at:], "\n") {
			at++
		}
		t.lines = append(t.lines, at)
	}
}

// end returns the offset of the end of a line, before its line break.
func (t *text) end(line int) int {
	if line+1 == len(t.lines) {
		return len(t.content)
	}
	end := t.lines[line+1] - 1
	if end > t.lines[line] && t.content[end] == '\n' && t.content[end-1] == '\r' {
		end--
	}
	return end
}

// offset returns the offset of a position. A position beyond its line or the text is at the
// end of that; one inside a surrogate pair is before the pair.
func (t *text) offset(p Position) int {
	if int(p.Line) >= len(t.lines) {
		return len(t.content)
	}
	at, end := t.lines[p.Line], t.end(int(p.Line))
	for units := int(p.Character); units > 0 && at < end; {
		if c := t.content[at]; c < utf8.RuneSelf {
			at, units = at+1, units-1
			continue
		}
		r, size := utf8.DecodeRuneInString(t.content[at:end])
		if units -= utf16Units(r); units < 0 {
			break
		}
		at += size
	}
	return at
}

// position returns the position of an offset, which is at the start of a character.
func (t *text) position(offset int) Position {
	offset = max(0, min(offset, len(t.content)))
	line, found := slices.BinarySearch(t.lines, offset)
	if !found {
		line--
	}
	return Position{uint32(line), uint32(t.units(offset) - t.units(t.lines[line]))}
}

// A mark holds the number of UTF-16 code units before an offset.
type mark struct{ offset, units int }

// markDistance is the approximate number of bytes between two marks. A minified policy is
// one line.
const markDistance = 1 << 10

// units returns the number of UTF-16 code units before an offset.
func (t *text) units(offset int) int {
	i, found := slices.BinarySearchFunc(t.marks, offset, func(m mark, offset int) int { return m.offset - offset })
	if !found {
		i--
	}
	m := t.marks[i]
	for _, r := range t.content[m.offset:offset] {
		m.units += utf16Units(r)
	}
	return m.units
}

// span returns the range between two offsets.
func (t *text) span(start, end int) Range { return Range{t.position(start), t.position(end)} }

// utf16Units returns the number of UTF-16 code units of a character.
func utf16Units(r rune) int {
	if r > 0xffff {
		return 2
	}
	return 1
}

// apply returns the text after a change. A change without a range replaces all of it.
func (t *text) apply(c contentChange) *text {
	if c.Range == nil {
		return newText(c.Text)
	}
	start, end := t.offset(c.Range.Start), t.offset(c.Range.End)
	if start > end {
		start, end = end, start
	}
	return newText(t.content[:start] + c.Text + t.content[end:])
}
