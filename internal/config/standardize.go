package config

import "bytes"

// Standardize replaces the extensions to JSON in a configuration with blanks:
// comments, from "#" or "//" to the end of the line or between "/*" and "*/", and
// commas before "]" and "}". Offsets do not change. Other errors are left to the
// parser.
func Standardize(text []byte) []byte {
	plain := bytes.Clone(text)
	blank(plain, len(plain)-len(bytes.TrimPrefix(plain, []byte("\ufeff"))))
	comma := -1       // the last token, if it is a comma after a value
	last := byte('[') // the last token's first byte
	for i := 0; i < len(plain); i++ {
		rest := plain[i:]
		switch {
		case bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0:
			continue
		case rest[0] == '#' || bytes.HasPrefix(rest, []byte("//")):
			blank(rest, until(rest, 0, "\n"))
			continue
		case bytes.HasPrefix(rest, []byte("/*")):
			blank(rest, until(rest, 2, "*/"))
			continue
		case rest[0] == ',' && bytes.IndexByte([]byte("[{,:"), last) < 0:
			comma = i
		default:
			if comma >= 0 && (rest[0] == ']' || rest[0] == '}') {
				plain[comma] = ' '
			}
			comma = -1
		}
		if last = rest[0]; last == '"' {
			i += stringLength(rest) - 1
		}
	}
	return plain
}

// until returns the length of a text up to and including the first end after
// from.
func until(text []byte, from int, end string) int {
	if i := bytes.Index(text[from:], []byte(end)); i >= 0 {
		return from + i + len(end)
	}
	return len(text)
}

// blank overwrites the first n bytes of a text except for line breaks.
func blank(text []byte, n int) {
	for i, ch := range text[:n] {
		if ch != '\n' && ch != '\r' {
			text[i] = ' '
		}
	}
}

// stringLength returns the length of the string that a text begins with. It
// does not extend beyond the line.
func stringLength(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"', '\n':
			return i + 1
		}
	}
	return len(text)
}
