package schema

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A Source is the text of a policy or a fragment. It is safe for concurrent use.
type Source struct {
	Name string // for messages; "<stdin>" for standard input
	Text string

	// Comments are the comments of a policy in order, each from its "#" to the end
	// of the line. [Parse] sets them.
	Comments []Span

	// Template is set on a text with placeholders; see [ParseTemplate]. Skipped
	// holds the placeholders that stand for settings or definitions.
	Template bool
	Skipped  []Span

	once   sync.Once
	lines  []int  // offset of the start of each line
	blocks []mark // one per blockSize bytes
}

// A Position is a line and a column, both counted from 1. Columns count characters.
type Position struct {
	Line, Column int
}

// A mark is the number of characters before an offset. Marks avoid counting a long
// line from its start for each column.
type mark struct {
	offset, characters int
}

const blockSize = 1 << 10

// index finds the lines and blocks of the text.
func (s *Source) index() {
	s.lines = append(s.lines, 0)
	for from := 0; ; {
		i := strings.IndexByte(s.Text[from:], '\n')
		if i < 0 {
			break
		}
		from += i + 1
		s.lines = append(s.lines, from)
	}
	characters := 0
	for offset := range s.Text {
		if offset >= len(s.blocks)*blockSize {
			s.blocks = append(s.blocks, mark{offset, characters})
		}
		characters++
	}
}

// line returns the index of the line that holds an offset.
func (s *Source) line(offset int) int {
	s.once.Do(s.index)
	line, found := slices.BinarySearch(s.lines, offset)
	if !found {
		line--
	}
	return line
}

// characters returns the number of characters before an offset.
func (s *Source) characters(offset int) int {
	var m mark
	for i := min(offset/blockSize, len(s.blocks)-1); i >= 0; i-- {
		if m = s.blocks[i]; m.offset <= offset {
			break
		}
	}
	return m.characters + utf8.RuneCountInString(s.Text[m.offset:offset])
}

// Position returns the position of a byte offset. An offset outside the text counts
// as its nearer end.
func (s *Source) Position(offset int) Position {
	offset = max(0, min(offset, len(s.Text)))
	line := s.line(offset)
	return Position{line + 1, s.characters(offset) - s.characters(s.lines[line]) + 1}
}

// Line returns the line at offset, without its line break, and the offset of its
// start.
func (s *Source) Line(offset int) (text string, start int) {
	line := s.line(max(0, min(offset, len(s.Text))))
	start, end := s.lines[line], len(s.Text)
	if line+1 < len(s.lines) {
		end = s.lines[line+1] - 1
	}
	return strings.TrimSuffix(s.Text[start:end], "\r"), start
}

// A Span is the range of bytes of a source from Start up to, but not including,
// End.
type Span struct {
	Source     *Source
	Start, End int
}

// Position returns the position of the start of the span.
func (s Span) Position() Position { return s.Source.Position(s.Start) }

// String returns the position of the start of the span, as file:line:column.
func (s Span) String() string {
	p := s.Position()
	return fmt.Sprintf("%s:%d:%d", s.Source.Name, p.Line, p.Column)
}

// First returns the span of the first byte of s, or s if it is empty.
func (s Span) First() Span {
	s.End = min(s.End, s.Start+1)
	return s
}

// Text returns the text of the span.
func (s Span) Text() string { return s.Source.Text[s.Start:s.End] }
