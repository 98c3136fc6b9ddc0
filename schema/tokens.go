package schema

import "strings"

// TokenOffset returns the offset of the n-th token of a text, counted from 0, or -1
// if the text has fewer. Strings, other words, brackets, colons, commas and
// comments are tokens. Their number bounds what Parse and the checks of a policy
// cost. TokenOffset does not allocate.
func TokenOffset(text string, n int) int {
	for i := 0; i < len(text); {
		start := i
		switch c := text[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
			continue
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i++
		case '#':
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				i += end
			} else {
				i = len(text)
			}
		case '{', '}', '[', ']', ':', ',':
			i++
		default:
			for i < len(text) && strings.IndexByte(" \t\r\n\"#{}[]:,", text[i]) < 0 {
				i++
			}
		}
		if n == 0 {
			return start
		}
		n--
	}
	return -1
}
