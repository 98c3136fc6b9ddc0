package extract

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/schema"
)

// A token is a token of C, other than comments and white space.
type token struct {
	kind       tokenKind
	start, end int
}

type tokenKind uint8

const (
	otherToken  tokenKind = iota // punctuation, a number or a character
	nameToken                    // an identifier
	stringToken                  // a string literal
	lineToken                    // a directive of the preprocessor
)

// literals returns the texts of the C string literals that begin with a bracket. Adjacent
// literals are joined, as by a compiler.
//
// Macros between them that the file defines as string literals are expanded. Any other
// macro becomes the placeholder @NAME@, or its value in define. Conditionals between the
// literals are evaluated. A macro that neither define nor the file defines is undefined, as
// for a compiler.
func literals(src *schema.Source, define map[string]string) []*mapping {
	l := &lexer{src: src, text: src.Text, macros: map[string][]token{}, define: define}
	l.lex()
	var all []*mapping
	for l.at = 0; l.at < len(l.tokens); {
		t := l.tokens[l.at]
		switch t.kind {
		case lineToken:
			l.directive(t)
		case stringToken:
			if m := l.literal(); strings.HasPrefix(strings.TrimLeft(m.text.String(), " \t\r\n"), "{") {
				all = append(all, m)
			}
			continue
		}
		l.at++
	}
	return all
}

type lexer struct {
	src    *schema.Source
	text   string
	pos    int
	tokens []token
	at     int // index of the next token

	macros map[string][]token // bodies of macros without parameters
	define map[string]string
	active []branch
	pieces int
	spent  int // bytes added by macros
}

// A branch is a conditional of the preprocessor.
type branch struct {
	off      int  // number of conditionals, from the outermost to this one, whose current part is not compiled
	compiled bool // this part or an earlier one is compiled
}

// off returns the number of the outermost n conditionals whose current part is not
// compiled.
func (l *lexer) off(n int) int {
	if n == 0 {
		return 0
	}
	return l.active[n-1].off
}

// lex splits the text into tokens.
func (l *lexer) lex() {
	for l.space(); l.pos < len(l.text); l.space() {
		l.tokens = append(l.tokens, l.next())
	}
}

// lineStart reports whether only white space precedes the current position on its line.
func (l *lexer) lineStart() bool {
	i := l.pos
	for i > 0 && (l.text[i-1] == ' ' || l.text[i-1] == '\t') {
		i--
	}
	return i == 0 || l.text[i-1] == '\n' || l.text[i-1] == '\r'
}

// space skips white space and comments.
func (l *lexer) space() {
	for l.pos < len(l.text) {
		rest := l.text[l.pos:]
		switch {
		case strings.HasPrefix(rest, "/*"):
			if end := strings.Index(rest[2:], "*/"); end >= 0 {
				l.comment(l.pos + 2 + end)
				l.pos += end + 4
			} else {
				l.pos = len(l.text)
			}
		case strings.HasPrefix(rest, "//"):
			end := l.pos + lineEnd(rest)
			l.comment(end)
			l.pos = end
		case strings.HasPrefix(rest, "\\\n"):
			l.pos += 2
		case strings.HasPrefix(rest, "\\\r\n"):
			l.pos += 3
		case strings.IndexByte(" \t\r\n\f\v", rest[0]) >= 0:
			l.pos++
		default:
			return
		}
	}
}

// comment notes the first line of a comment that ends at an offset, for directives in it.
func (l *lexer) comment(end int) {
	line, _, _ := strings.Cut(l.text[l.pos:end], "\n")
	l.src.Comments = append(l.src.Comments, schema.Span{Source: l.src, Start: l.pos, End: l.pos + len(strings.TrimRight(line, " \t\r"))})
}

// lineEnd returns the length of a line, which continues after a backslash at its
// end.
func lineEnd(text string) int {
	at := 0
	for {
		i := strings.IndexByte(text[at:], '\n')
		if i < 0 {
			return len(text)
		}
		at += i
		if line := strings.TrimSuffix(text[:at], "\r"); !strings.HasSuffix(line, `\`) {
			return at
		}
		at++
	}
}

func isName(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// next reads a token.
func (l *lexer) next() token {
	start, rest := l.pos, l.text[l.pos:]
	kind := otherToken
	switch c := rest[0]; {
	case c == '#' && l.lineStart():
		kind = lineToken
		l.pos += directiveEnd(rest)
	case c == '"':
		kind = stringToken
		l.pos += quotedEnd(rest, '"')
	case c == '\'':
		l.pos += quotedEnd(rest, '\'')
	case isName(c) && (c < '0' || c > '9'):
		kind = nameToken
		n := 1
		for n < len(rest) && isName(rest[n]) {
			n++
		}
		if n < len(rest) && rest[n] == '"' {
			switch rest[:n] {
			case "R", "u8R", "LR", "uR", "UR":
				kind = stringToken
				n += rawEnd(rest[n:])
			case "u8", "L", "u", "U":
				kind = stringToken
				n += quotedEnd(rest[n:], '"')
			}
		}
		l.pos += n
	case isName(c): // a number, with its suffix
		for l.pos < len(l.text) && (isName(l.text[l.pos]) || l.text[l.pos] == '.') {
			l.pos++
		}
	default:
		_, size := utf8.DecodeRuneInString(rest)
		l.pos += size
	}
	return token{kind, start, l.pos}
}

// directiveEnd returns the length of a directive. A comment in it may span lines.
func directiveEnd(text string) int {
	i := 0
	for i < len(text) && text[i] != '\n' {
		switch rest := text[i:]; {
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				return len(text)
			}
			i += end + 4
		case strings.HasPrefix(rest, "//"):
			return i + lineEnd(rest)
		case rest[0] == '"' || rest[0] == '\'':
			i += quotedEnd(rest, rest[0])
		case strings.HasPrefix(rest, "\\\r\n"):
			i += 3
		case rest[0] == '\\':
			i += 2
		default:
			i++
		}
	}
	return min(i, len(text))
}

// quotedEnd returns the length of a literal in quotation marks, which ends on its line.
func quotedEnd(text string, quote byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if strings.HasPrefix(text[i+1:], "\r\n") {
				i++
			}
			i++
		case quote:
			return i + 1
		case '\n':
			return i
		}
	}
	return len(text)
}

// rawEnd returns the length of a raw string of C++, after its R.
func rawEnd(text string) int {
	open := strings.IndexByte(text, '(')
	if open < 0 {
		return len(text)
	}
	shut := ")" + text[1:open] + `"`
	if end := strings.Index(text[open:], shut); end >= 0 {
		return open + end + len(shut)
	}
	return len(text)
}

func (l *lexer) word(t token) string { return l.text[t.start:t.end] }

// literal reads the adjacent literals from the current token on.
func (l *lexer) literal() *mapping {
	m := &mapping{src: l.src, escaped: true}
	depth := len(l.active)
	for ; l.at < len(l.tokens); l.at++ {
		t := l.tokens[l.at]
		if t.kind == lineToken {
			if name := l.directiveName(t); len(l.active) == depth && (name == "else" || name == "elif" || name == "endif") {
				return m // end of the conditional that contains the literals
			}
			l.directive(t)
			continue
		}
		skipped := l.off(len(l.active)) > l.off(depth)
		switch {
		case t.kind == stringToken:
			if !skipped {
				l.decode(m, t)
			}
		case t.kind == nameToken:
			end := l.call()
			if !skipped {
				l.macro(m, t, end)
			}
		case skipped:
		default:
			return m
		}
	}
	return m
}

// call skips the arguments of a macro, and returns their end.
func (l *lexer) call() int {
	if l.at+1 >= len(l.tokens) || l.word(l.tokens[l.at+1]) != "(" {
		return l.tokens[l.at].end
	}
	depth := 0
	for l.at++; l.at < len(l.tokens); l.at++ {
		switch l.word(l.tokens[l.at]) {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return l.tokens[l.at].end
			}
		}
	}
	return len(l.text)
}

// macro adds the text of a macro. It adds the placeholder instead if the text is unknown,
// or if the macros of the file have added more than the maximum size of a policy.
func (l *lexer) macro(m *mapping, t token, end int) {
	name := l.word(t)
	arguments := strings.Trim(l.text[t.end:end], "() \t")
	if value, ok := l.define[name]; ok && arguments == "" {
		m.add(value, t.start, end, -1)
		return
	}
	if value, ok := l.define[arguments]; ok { // the macro stringifies its argument
		m.add(value, t.start, end, -1)
		return
	}
	body := l.macros[name]
	ok := len(body) > 0 && arguments == ""
	if ok {
		l.spent += body[len(body)-1].end - body[0].start
		ok = l.spent <= schema.MaxSize
	}
	if !ok || slices.ContainsFunc(body, func(b token) bool { return b.kind != stringToken }) {
		m.add("@"+name+"@", t.start, end, -1)
		return
	}
	for _, b := range body {
		l.decode(m, b)
	}
}

// simple are the escapes of C for single characters.
var simple = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'a': 7, 'b': 8, 'f': 12, 'v': 11}

// decode adds the text of a string literal.
func (l *lexer) decode(m *mapping, t token) {
	l.pieces++
	piece := l.pieces
	open := strings.IndexByte(l.word(t), '"')
	start, end := t.start+open+1, t.end-1
	if strings.HasSuffix(l.text[t.start:t.start+open], "R") {
		delimiter := strings.IndexByte(l.text[start:t.end], '(')
		if delimiter < 0 || start+delimiter+1 > end-delimiter-1 {
			return
		}
		m.add(l.text[start+delimiter+1:end-delimiter-1], start+delimiter+1, end-delimiter-1, -1) // raw: no escapes
		return
	}
	if end < start || l.text[end] != '"' {
		return // unterminated, which the compiler reports
	}
	for at := start; at < end; {
		next := strings.IndexByte(l.text[at:end], '\\')
		if next < 0 {
			next = end - at
		}
		if next > 0 {
			m.copy(at, at+next, piece)
			at += next
			continue
		}
		text, size := unescape(l.text[at:end])
		if text == "" { // a line continuation
			at += size
			continue
		}
		m.add(text, at, at+size, piece)
		at += size
	}
}

// unescape decodes the escape at the start of a text. It returns its length.
func unescape(text string) (string, int) {
	if len(text) < 2 {
		return text, len(text)
	}
	number := func(from, most, base int) (uint64, int) {
		end := from
		for end < len(text) && end < from+most {
			if _, err := strconv.ParseUint(text[end:end+1], base, 8); err != nil {
				break
			}
			end++
		}
		n, _ := strconv.ParseUint(text[from:end], base, 32)
		return n, end
	}
	switch c := text[1]; {
	case c == '\n':
		return "", 2
	case c == '\r' && strings.HasPrefix(text[2:], "\n"):
		return "", 3
	case c == 'x':
		n, end := number(2, 8, 16)
		return string([]byte{byte(n)}), end
	case '0' <= c && c <= '7':
		n, end := number(1, 3, 8)
		return string([]byte{byte(n)}), end
	case c == 'u':
		n, end := number(2, 4, 16)
		return string(rune(n)), end
	case c == 'U':
		n, end := number(2, 8, 16)
		return string(rune(n)), end
	case simple[c] != 0:
		return string([]byte{simple[c]}), 2
	}
	_, size := utf8.DecodeRuneInString(text[1:])
	return text[1 : 1+size], 1 + size
}
