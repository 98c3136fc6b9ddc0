package schema

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The limits of a policy. lws 5.0.0 reads objects nested 62 deep and arrays 64
// deep; earlier versions less.
const (
	MaxSize  = 16 << 20 // bytes
	MaxDepth = 64       // nested objects and arrays

	maxSyntax = 50 // reported syntax errors
)

// The rules that the parser reports.
const (
	RuleSyntax    = "syntax"     // lws fails to read the policy, or misreads it
	RuleLaxSyntax = "lax-syntax" // not JSON, but lws reads it as intended
)

// ReadAll reads the text of a policy. It fails if the text is larger than MaxSize.
func ReadAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err == nil && len(text) > MaxSize {
		err = fmt.Errorf("larger than %d MiB, the limit of a policy", MaxSize>>20)
	}
	return text, err
}

// Parse reads a policy: JSON (RFC 8259), with comments from "#" to the end of the
// line as in lws. Positions in diagnostics begin with name. Parse never fails:
// errors are in Document.Syntax, and the document holds as much of the text as
// could be read.
//
// Deviations from JSON that lws reads as intended are lax-syntax: a comma before a
// closing "]", one surplus "}" there, and leading zeros of a number
// (lib/misc/lejp.c, observed on lws 4.3.10 and 5.0.0).
func Parse(name string, text []byte) *Document {
	src := &Source{Name: name, Text: string(text)}
	p := &parser{src: src, text: src.Text}
	d := &Document{Source: src}
	if problem, at := p.unreadable(); problem != "" {
		p.errorf(at, at, "%s", problem)
		d.Root.Span = Span{src, at, at}
		d.Tail = src.Text
		d.Syntax = p.diags
		return d
	}
	if strings.HasPrefix(p.text, bom) {
		p.fixf(0, len(bom), "remove it", "", "the text starts with a byte order mark: lws takes such a policy for a file name")
		p.pos = len(bom)
		d.Root = p.value()
		d.Root.Before = bom + d.Root.Before
	} else {
		d.Root = p.value()
	}
	d.Tail = p.text[p.pos:]
	p.finish(d)
	d.Syntax = SortDiagnostics(p.diags)
	return d
}

// bom is the byte order mark that some editors put before UTF-8.
const bom = "\ufeff"

type parser struct {
	src  *Source
	text string
	pos  int

	open    []int // offsets of the open brackets
	diags   []Diagnostic
	tooMany bool // errors beyond maxSyntax were dropped
	ended   bool // an unexpected end of the text was reported
	stray   bool // a surplus bracket that lws ignores was reported
}

// unreadable returns why the text cannot be parsed at all, and where; or "".
func (p *parser) unreadable() (problem string, at int) {
	switch {
	case len(p.text) > MaxSize:
		return fmt.Sprintf("the text is larger than %d MiB, the limit of a policy", MaxSize>>20), 0
	case strings.HasPrefix(p.text, "\xff\xfe"), strings.HasPrefix(p.text, "\xfe\xff"):
		return "the text is UTF-16: save it as UTF-8", 0
	case strings.IndexByte(p.text, 0) >= 0:
		return "not a text file: it holds a NUL byte", strings.IndexByte(p.text, 0)
	}
	for i, r := range p.text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(p.text[i:]); size == 1 {
				return fmt.Sprintf("the byte 0x%02x is not UTF-8: save the text as UTF-8", p.text[i]), i
			}
		}
	}
	return "", 0
}

func (p *parser) report(d Diagnostic) {
	switch {
	case len(p.diags) < maxSyntax:
		p.diags = append(p.diags, d)
	case !p.tooMany:
		p.tooMany = true
		p.diags = append(p.diags, Diagnostic{Rule: RuleSyntax, Severity: Error, Span: d.Span,
			Message: "more syntax errors follow: fix those above first"})
	}
}

func (p *parser) span(start, end int) Span { return Span{p.src, start, end} }

func (p *parser) errorf(start, end int, format string, args ...any) {
	p.report(Diagnostic{Rule: RuleSyntax, Severity: Error, Span: p.span(start, end), Message: fmt.Sprintf(format, args...)})
}

// fixf reports an error that replacing the text from start to end would fix.
func (p *parser) fixf(start, end int, fix, newText, format string, args ...any) {
	d := Diagnostic{Rule: RuleSyntax, Severity: Error, Span: p.span(start, end), Message: fmt.Sprintf(format, args...)}
	d.Fixes = []Fix{{fix, []Edit{{p.span(start, end), newText}}}}
	p.report(d)
}

// peek returns the next byte, or 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// space skips white space and comments.
func (p *parser) space() {
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			p.pos++
		case c == '#':
			start := p.pos
			p.line()
			p.src.Comments = append(p.src.Comments, p.span(start, p.pos))
		case c == '/' && strings.HasPrefix(p.text[p.pos:], "//"):
			start := p.pos
			p.line()
			p.fixf(start, start+2, `write "#"`, "#", `lws has no "//" comments: a comment runs from "#" to the end of the line`)
		case c == '/' && strings.HasPrefix(p.text[p.pos:], "/*"):
			start := p.pos
			if end := strings.Index(p.text[start+2:], "*/"); end >= 0 {
				p.pos = start + 2 + end + 2
			} else {
				p.pos = len(p.text)
			}
			p.errorf(start, start+2, `lws has no "/*" comments: a comment runs from "#" to the end of the line`)
		default:
			return
		}
	}
}

// line skips the rest of the line.
func (p *parser) line() {
	if i := strings.IndexByte(p.text[p.pos:], '\n'); i >= 0 {
		p.pos += i
	} else {
		p.pos = len(p.text)
	}
}

// value reads a value and the space around it. A missing value is reported, and has
// Kind Missing.
func (p *parser) value() Value {
	start := p.pos
	p.space()
	return p.valueAfter(start)
}

// valueAfter reads the value at p.pos. Its Before is the text from start on.
func (p *parser) valueAfter(start int) Value {
	v := Value{Before: p.text[start:p.pos]}
	from := p.pos
	switch c := p.peek(); {
	case p.pos == len(p.text), c == ',' || c == ':' || c == ']' || c == '}':
		v.Kind = Missing
		switch {
		case c == ']' || c == '}' || c == ',' || c == ':':
			p.errorf(from, from, "a value is missing before %q", string(c))
		case len(p.open) == 0 && !p.ended:
			p.errorf(from, from, "the text is empty: a policy is a JSON object, { … }")
		}
	case (c == '{' || c == '[') && len(p.open) == MaxDepth:
		p.skipDeep()
		v.Kind, v.Raw = Invalid, p.text[from:p.pos]
	case c == '{':
		v.Kind, v.Object = ObjectKind, p.object()
	case c == '[':
		v.Kind, v.Array = ArrayKind, p.array()
	case c == '"':
		v.Kind, v.Raw = p.str(), p.text[from:p.pos]
	default:
		v.Kind = p.word()
		v.Raw = p.text[from:p.pos]
	}
	v.Span = p.span(from, p.pos)
	start = p.pos
	p.space()
	v.After = p.text[start:p.pos]
	return v
}

// push enters an object or array.
func (p *parser) push() {
	p.open = append(p.open, p.pos)
	p.pos++
}

func (p *parser) pop() { p.open = p.open[:len(p.open)-1] }

// closer reads a closing bracket in an object or array that want closes. It returns
// the text of its bracket and true. If the bracket closes an enclosing object or
// array instead, the text is "". A surplus bracket is skipped, and closer returns
// false. after reports whether the bracket follows an element.
func (p *parser) closer(want byte, after bool) (text string, ends bool) {
	c := p.text[p.pos]
	if c == want {
		p.pos++
		return string(c), true
	}
	opener := p.span(p.open[len(p.open)-1], p.open[len(p.open)-1]+1)
	d := Diagnostic{Rule: RuleSyntax, Severity: Error, Span: p.span(p.pos, p.pos+1),
		Related: []Related{{opener, fmt.Sprintf("%q was opened here", opener.Text())}}}
	next := strings.TrimLeft(p.text[p.pos+1:], " \t\r\n")
	encloses := slices.ContainsFunc(p.open[:len(p.open)-1], func(at int) bool { return p.text[at]+2 == c })
	if encloses && (next == "" || next[0] != want) {
		d.Message = fmt.Sprintf("%q is missing before this %q; lws refuses the policy, or accepts it and waits for more", string(want), string(c))
		d.Fixes = []Fix{{fmt.Sprintf("insert %q", string(want)), []Edit{{p.span(p.pos, p.pos), string(want)}}}}
		p.report(d)
		return "", true
	}
	d.Message = fmt.Sprintf("this %q closes nothing: %q is open", string(c), opener.Text())
	d.Fixes = []Fix{{"remove it", []Edit{{d.Span, ""}}}}
	p.report(d)
	if after && c == '}' && next != "" && next[0] == ']' && !p.stray {
		p.stray = true // lws ignores only one
		p.lax("; lws ignores it")
	}
	p.pos++
	if p.space(); p.peek() == ',' {
		p.pos++ // of the element before the surplus bracket
	}
	return "", false
}

// eof reports the end of the text inside objects or arrays, once.
func (p *parser) eof() {
	if p.ended {
		return
	}
	p.ended = true
	d := Diagnostic{Rule: RuleSyntax, Severity: Error, Span: p.span(len(p.text), len(p.text)),
		Message: "the text ends here, but "}
	if n := len(p.open); n == 1 {
		d.Message += "the object or array around it is not closed"
	} else {
		d.Message += fmt.Sprintf("the %d objects and arrays around it are not closed", n)
	}
	d.Message += "; lws accepts such a policy, with what it has read so far"
	for i := len(p.open) - 1; i >= 0 && len(d.Related) < 4; i-- {
		d.Related = append(d.Related, Related{p.span(p.open[i], p.open[i]+1), "not closed"})
	}
	p.report(d)
}

func (p *parser) object() *Object {
	o := &Object{}
	p.push()
	defer p.pop()
	start := p.pos // of the text that the tree does not hold yet
	for {
		p.space()
		switch c := p.peek(); {
		case p.pos == len(p.text):
			p.eof()
			o.Tail = p.text[start:]
			return o
		case c == '}' || c == ']':
			tail := p.text[start:p.pos]
			if text, ends := p.closer('}', false); ends {
				if n := len(o.Members); n > 0 && o.Members[n-1].Comma != "" {
					at := o.Members[n-1].end()
					p.fixf(at, at+1, "remove the comma", "", "a comma before %q is not JSON, and lws refuses it", "}")
				}
				o.Tail, o.Close = tail, text
				return o
			}
		case c == ',':
			p.fixf(p.pos, p.pos+1, "remove it", "", "unexpected comma")
			p.pos++
		case c == ':':
			p.errorf(p.pos, p.pos+1, "a key is missing before \":\"")
			p.pos++
		case c == '"':
			o.Members = append(o.Members, p.member(start))
			start = p.pos
		case c == '{' || c == '[':
			p.errorf(p.pos, p.pos+1, "%q where a key in double quotes is expected", string(c))
			from := p.pos
			v := p.valueAfter(p.pos)
			o.Members = append(o.Members, &Member{
				Name:  Value{Before: p.text[start:from], Span: p.span(from, from)},
				Value: v, Comma: p.comma(&v),
			})
			start = p.pos
		default:
			o.Members = append(o.Members, p.member(start))
			start = p.pos
		}
	}
}

// end returns the offset of the comma after a member.
func (m *Member) end() int { return m.Value.Span.End + len(m.Value.After) }

// member reads a member. Its Before is the text from start on.
func (p *parser) member(start int) *Member {
	m := &Member{Name: Value{Before: p.text[start:p.pos], Kind: String}}
	from := p.pos
	if p.peek() == '"' {
		m.Name.Kind = p.str()
		m.Name.Raw = p.text[from:p.pos]
		m.Key = unquote(m.Name.Raw)
	} else {
		m.Name.Kind = Invalid
		p.token()
		m.Name.Raw = p.text[from:p.pos]
		m.Key = strings.Trim(m.Name.Raw, "'")
		p.fixf(from, p.pos, "write "+Quote(m.Key), Quote(m.Key), "a key needs double quotes: %s", Quote(m.Key))
	}
	m.Name.Span = p.span(from, p.pos)
	start = p.pos
	p.space()
	m.Name.After = p.text[start:p.pos]
	switch c := p.peek(); {
	case c == ':':
		p.pos++
		m.Colon = ":"
		m.Value = p.value()
		m.Comma = p.comma(&m.Value)
		return m
	case c == ',' || c == '}' || c == ']' || p.pos == len(p.text):
		if p.pos < len(p.text) {
			p.errorf(m.Name.Span.Start, m.Name.Span.End, "the key %s has no value", QuoteName(m.Key))
		}
		m.Value.Span = p.span(p.pos, p.pos)
		m.Comma = p.comma(nil)
		return m
	}
	if m.Name.Kind == Invalid {
		m.Value = p.value()
		m.Comma = p.comma(&m.Value)
		return m
	}
	at := m.Name.Span.End
	p.fixf(at, at, `insert ":"`, ":", "\":\" is missing after the key %s", QuoteName(m.Key))
	m.Value = p.value()
	m.Comma = p.comma(&m.Value)
	return m
}

// comma reads the comma after a value. A missing one is reported unless a closing
// bracket follows.
func (p *parser) comma(after *Value) string {
	switch c := p.peek(); {
	case c == ',':
		p.pos++
		return ","
	case p.pos == len(p.text), c == '}' || c == ']', c == ':':
		return ""
	}
	at := p.pos
	if after != nil {
		at = after.Span.End
		if after.Kind == Invalid || after.Kind == Missing {
			return "" // reported already
		}
	}
	p.fixf(at, at, `insert ","`, ",", "\",\" is missing here, before %s", p.upcoming())
	return ""
}

// upcoming returns the start of the next token, for a message.
func (p *parser) upcoming() string {
	end := p.pos + 1
	for end < len(p.text) && strings.IndexByte(" \t\r\n,:[]{}#", p.text[end]) < 0 {
		end++
	}
	return QuoteName(strings.Trim(p.text[p.pos:end], `"`))
}

func (p *parser) array() *Array {
	a := &Array{}
	p.push()
	defer p.pop()
	start := p.pos
	for {
		p.space()
		switch c := p.peek(); {
		case p.pos == len(p.text):
			p.eof()
			a.Tail = p.text[start:]
			return a
		case c == '}' || c == ']':
			tail := p.text[start:p.pos]
			if text, ends := p.closer(']', len(a.Elems) > 0 && a.Elems[len(a.Elems)-1].Comma == ""); ends {
				if n := len(a.Elems); n > 0 && a.Elems[n-1].Comma != "" {
					last := &a.Elems[n-1].Value
					at := last.Span.End + len(last.After)
					p.fixf(at, at+1, "remove the comma", "", "a comma before %q is not JSON", "]")
					p.lax("; lws ignores it")
				}
				a.Tail, a.Close = tail, text
				return a
			}
		case c == ',':
			p.fixf(p.pos, p.pos+1, "remove it", "", "unexpected comma")
			p.pos++
		case c == ':':
			p.errorf(p.pos, p.pos+1, "\":\" in an array: its elements have no keys")
			p.pos++
		default:
			e := &Element{Value: p.valueAfter(start)}
			e.Comma = p.comma(&e.Value)
			a.Elems = append(a.Elems, e)
			start = p.pos
		}
	}
}

// lax makes the last diagnostic a warning of lax-syntax.
func (p *parser) lax(lws string) {
	if !p.tooMany {
		d := &p.diags[len(p.diags)-1]
		d.Rule, d.Severity = RuleLaxSyntax, Warning
		d.Message += lws
	}
}

// skipDeep skips an object or array that is nested too deep.
func (p *parser) skipDeep() {
	p.errorf(p.pos, p.pos+1, "objects and arrays nested more than %d deep; lws 5.0 reads 62 objects, earlier versions fewer", MaxDepth)
	depth := 0
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case '{', '[':
			depth++
			p.pos++
		case '}', ']':
			depth--
			p.pos++
		case '"':
			p.str()
		case '#':
			p.line()
		default:
			p.pos++
		}
		if depth == 0 {
			return
		}
	}
	p.ended = true // the depth was reported
}

// token skips a word, or a text in single quotes.
func (p *parser) token() {
	if p.peek() == '\'' {
		rest := p.text[p.pos+1:]
		if i := strings.IndexAny(rest, "'\n"); i >= 0 && rest[i] == '\'' {
			p.pos += i + 2
			return
		}
	}
	p.pos++
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n,:[]{}\"#", p.text[p.pos]) < 0 {
		p.pos++
	}
}

var (
	number     = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	zeroNumber = regexp.MustCompile(`^-?0+[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
)

// word reads a value other than a string, object or array.
func (p *parser) word() Kind {
	start := p.pos
	p.token()
	switch w := p.text[start:p.pos]; {
	case w == "true" || w == "false":
		return Bool
	case w == "null":
		return Null
	case digits(w) || number.MatchString(w):
		return Number
	case zeroNumber.MatchString(w):
		sign, rest := "", w
		if w[0] == '-' {
			sign, rest = "-", w[1:]
		}
		want := strings.TrimLeft(rest, "0")
		if want == "" || want[0] < '0' || want[0] > '9' {
			want = "0" + want
		}
		want = sign + want
		p.fixf(start, p.pos, "write "+want, want, "a number must not start with a zero: write %s", want)
		p.lax("; lws ignores the zeros")
		return Number
	case strings.EqualFold(w, "true"), strings.EqualFold(w, "false"), strings.EqualFold(w, "null"):
		want := strings.ToLower(w)
		p.fixf(start, p.pos, "write "+want, want, "%s is written %s", w, want)
	case w[0] == '\'':
		want := Quote(strings.Trim(w, "'"))
		p.fixf(start, p.pos, "write "+want, want, "a string needs double quotes: %s", want)
	default:
		p.fixf(start, p.pos, "write "+Quote(w), Quote(w), "%s is not a JSON value: a string needs double quotes", QuoteName(w))
	}
	return Invalid
}

// digits reports whether w is a plain decimal number, as most numbers are.
func digits(w string) bool {
	for i := range len(w) {
		if w[i] < '0' || w[i] > '9' {
			return false
		}
	}
	return w == "0" || w[0] != '0'
}

// str skips a string and reports errors in it. A string that is not closed is
// Invalid.
func (p *parser) str() Kind {
	start := p.pos
	p.pos++
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return String
		case c == '\n':
			p.errorf(start, p.pos, "the string is not closed on its line")
			return Invalid
		case c < 0x20:
			p.fixf(p.pos, p.pos+1, "escape it", fmt.Sprintf(`\u%04x`, c), "the control character 0x%02x in a string: write it as an escape", c)
			p.pos++
		case c == '\\':
			p.escape()
		default:
			p.pos++
		}
	}
	p.errorf(start, start+1, "the string is not closed before the end of the text")
	p.ended = true
	return Invalid
}

// escape skips an escape in a string.
func (p *parser) escape() {
	start := p.pos
	p.pos++
	if p.pos == len(p.text) || p.text[p.pos] == '\n' {
		return // str reports it
	}
	switch c := p.text[p.pos]; {
	case strings.IndexByte(`"\/bfnrt`, c) >= 0:
		p.pos++
		return
	case c == 'u':
		p.pos++
		for range 4 {
			if p.pos == len(p.text) || !isHex(p.text[p.pos]) {
				p.errorf(start, p.pos, `\u needs four hexadecimal digits`)
				return
			}
			p.pos++
		}
		return
	}
	_, size := utf8.DecodeRuneInString(p.text[p.pos:])
	p.pos += size
	p.fixf(start, start+1, `write "\\"`, `\\`, "%s is not a JSON escape: write \\\\ for a backslash", p.text[start:p.pos])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// finish reports errors that only the whole document shows.
func (p *parser) finish(d *Document) {
	switch {
	case d.Root.Kind == Missing || p.ended:
	case d.Root.Kind != ObjectKind:
		p.errorf(d.Root.Span.Start, d.Root.Span.Start+1, "a policy is a JSON object, not %s", d.Root.Kind)
	case d.Tail != "":
		at := len(p.text) - len(d.Tail)
		p.errorf(at, at+1, "text after the end of the policy: its effect on lws depends on the buffers it arrives in")
	}
}
