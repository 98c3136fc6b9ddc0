package schema

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestPositionByCounting compares positions with a count from the start of the line.
func TestPositionByCounting(t *testing.T) {
	for _, text := range []string{
		"", "\n", "a", "a\r\nb\n",
		strings.Repeat("x", 3*blockSize),
		strings.Repeat("日本語\n", blockSize),
		strings.Repeat("é", blockSize) + "\n" + strings.Repeat("日👍", blockSize),
		"x" + strings.Repeat("👍", blockSize) + "\n" + strings.Repeat("\xff\xe6\x97", blockSize),
	} {
		s := &Source{Text: text}
		for offset := -1; offset <= len(text)+1; offset++ {
			in := max(0, min(offset, len(text)))
			start := strings.LastIndexByte(text[:in], '\n') + 1
			want := Position{strings.Count(text[:in], "\n") + 1, utf8.RuneCountInString(text[start:in]) + 1}
			if got := s.Position(offset); got != want {
				t.Fatalf("%.20q at %d: %v, want %v", text, offset, got, want)
			}
			line, from := s.Line(offset)
			end := start + len(line)
			if from != start || text[start:end] != line || strings.Contains(line, "\n") ||
				end < len(text) && text[end] != '\n' && !strings.HasPrefix(text[end:], "\r\n") {
				t.Fatalf("%.20q at %d: line %.20q from %d", text, offset, line, from)
			}
		}
	}
}
