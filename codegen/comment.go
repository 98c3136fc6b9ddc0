package codegen

import (
	"strings"
	"unicode"
)

// commentText escapes text from a policy for a one-line comment in Go or C. It is
// idempotent.
func commentText(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\\':
			return '/' // first, since the replacement may form the end of a comment
		case r == unicode.ReplacementChar || r == holeMark || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
	for _, pair := range []string{"*/", "/*", "??"} {
		for strings.Contains(s, pair) { // "???" contains two
			s = strings.ReplaceAll(s, pair, pair[:1]+" "+pair[1:])
		}
	}
	return s
}
