package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/yuin/goldmark/ast"
)

// slugs makes the ids of headings as GitHub does, so that anchors work in both places.
type slugs struct{ used map[string]int }

// Generate returns the id of a heading.
func (s *slugs) Generate(value []byte, _ ast.NodeKind) []byte {
	var b strings.Builder
	for _, r := range strings.ToLower(string(value)) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	id := b.String()
	n := s.used[id]
	s.Put([]byte(id))
	if n > 0 {
		id = fmt.Sprintf("%s-%d", id, n)
	}
	return []byte(id)
}

// Put marks an id as used.
func (s *slugs) Put(value []byte) {
	if s.used == nil {
		s.used = map[string]int{}
	}
	s.used[string(value)]++
}
