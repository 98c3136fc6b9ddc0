package schema

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A Source is one file of policy text, or a fragment of one. It is safe for
// concurrent use.
type Source struct {
	Name string // as it is to be shown; "<stdin>" for standard input
	Text string

	// Comments are the comments of a policy, each from its "#" to the end of
	// its line, in their order. Parse finds them.
	Comments []Span

	once  sync.Once
	lines []int // offset of the start of each line
}

// A Position is a place in a source, as people count: from 1, the column in
// characters.
type Position struct {
	Line, Column int
}

// Position returns the place of a byte offset; offsets outside of the text are
// moved to its nearer end.
func (s *Source) Position(offset int) Position {
	offset = max(0, min(offset, len(s.Text)))
	s.once.Do(func() {
		s.lines = append(s.lines, 0)
		for i := range len(s.Text) {
			if s.Text[i] == '\n' {
				s.lines = append(s.lines, i+1)
			}
		}
	})
	line, found := slices.BinarySearch(s.lines, offset)
	if !found {
		line--
	}
	return Position{line + 1, utf8.RuneCountInString(s.Text[s.lines[line]:offset]) + 1}
}

// Line returns the text of the line that holds offset, without its end, and
// the offset where it starts.
func (s *Source) Line(offset int) (text string, start int) {
	offset = max(0, min(offset, len(s.Text)))
	start = strings.LastIndexByte(s.Text[:offset], '\n') + 1
	text = s.Text[start:]
	if end := strings.IndexByte(text, '\n'); end >= 0 {
		text = text[:end]
	}
	return strings.TrimSuffix(text, "\r"), start
}

// A Span is a range of bytes of a source, Start included and End not.
type Span struct {
	Source     *Source
	Start, End int
}

// Position returns the place where the span starts.
func (s Span) Position() Position { return s.Source.Position(s.Start) }

// String returns the place where the span starts, as file:line:column.
func (s Span) String() string {
	p := s.Position()
	return fmt.Sprintf("%s:%d:%d", s.Source.Name, p.Line, p.Column)
}

// Text returns the text that the span covers.
func (s Span) Text() string { return s.Source.Text[s.Start:s.End] }
