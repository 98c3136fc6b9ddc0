package codegen

import (
	"strings"
	"unicode"
)

// commentText escapes text from a policy for a one-line comment in Go or C.
func commentText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || r == holeMark || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	return strings.NewReplacer("*/", "* /", "/*", "/ *", "\\", "/", "??", "? ?").Replace(s)
}
