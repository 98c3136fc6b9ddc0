package codegen

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxCString is the maximum size of a string literal, including NUL, that every C99
// compiler accepts (C99 5.2.4.1).
const maxCString = 4095

// cLine is the approximate length of a string literal on one line.
const cLine = 60

// cString returns s as a C string literal, over several lines if it is long.
func cString(s string) string {
	if len(s) < cLine && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f || r == '"' || r == '\\' || r == '?' }) {
		return `"` + s + `"`
	}
	var b strings.Builder
	b.WriteByte('"')
	piece, n := "", 0
	for width := 0; s != ""; s = s[n:] {
		last := piece
		if piece, n = cChar(s, '"'); piece == "?" && last == "?" {
			b.WriteByte('\\') // prevents a trigraph
		}
		b.WriteString(piece)
		if width += len(piece); width >= cLine && len(s)-n > cLine/4 {
			b.WriteString("\"\n\"")
			width = 0
		}
	}
	b.WriteByte('"')
	return b.String()
}

// cChars returns s as the elements of an array of char, NUL included.
func cChars(s string) string {
	var b strings.Builder
	for i := range len(s) + 1 {
		if i%12 == 0 {
			b.WriteString("\n\t")
		} else {
			b.WriteByte(' ')
		}
		if i == len(s) {
			b.WriteString("0")
		} else if c := s[i]; c < utf8.RuneSelf {
			piece, _ := cChar(s[i:i+1], '\'')
			fmt.Fprintf(&b, "'%s',", piece)
		} else {
			fmt.Fprintf(&b, `'\%03o',`, c)
		}
	}
	return b.String()
}

// cChar returns the first character of s for a literal, and its length in s. It
// escapes unprintable characters in octal: unlike hexadecimal, an octal escape ends
// after three digits.
func cChar(s string, quote byte) (string, int) {
	if i := strings.IndexByte("\n\t\r", s[0]); i >= 0 {
		return [...]string{`\n`, `\t`, `\r`}[i], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	switch {
	case s[0] == quote || s[0] == '\\':
		return `\` + s[:1], 1
	case r == utf8.RuneError && n <= 1, r < utf8.RuneSelf && !unicode.IsPrint(r):
		return fmt.Sprintf(`\%03o`, s[0]), 1
	case !unicode.IsPrint(r):
		var b strings.Builder
		for _, c := range []byte(s[:n]) {
			fmt.Fprintf(&b, `\%03o`, c)
		}
		return b.String(), n
	}
	return s[:n], n
}

// maxCSymbol limits the length of part of an identifier: C99 compilers may ignore
// characters after the 63rd.
const maxCSymbol = 40

// cSymbol returns a readable part of a C identifier for a name. It may be empty.
func cSymbol(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			b.WriteRune(r)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "_") {
			b.WriteByte('_')
		}
		if b.Len() == maxCSymbol {
			break
		}
	}
	return strings.TrimSuffix(b.String(), "_")
}
