package codegen

import (
	"strings"
	"unicode"
)

// commentText returns text that comes from outside so that it stays on its
// line and inside of its comment, in Go and in C.
func commentText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	return strings.NewReplacer("*/", "* /", "/*", "/ *", "\\", "/", "??", "? ?").Replace(s)
}
