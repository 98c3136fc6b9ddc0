package schema

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/internal/readfile"
)

// The limits of a policy. lws 5.0.0 reads objects nested 62 deep and arrays nested
// 64 deep; earlier versions read fewer levels.
const (
	MaxSize  = 16 << 20 // bytes
	MaxDepth = 64       // levels of objects and arrays

	maxSyntax = 1000 // syntax errors reported
)

// The rules that the parser reports.
const (
	RuleSyntax    = "syntax"     // lws refuses the policy or reads something else
	RuleLaxSyntax = "lax-syntax" // lws reads the text as meant, but it is not JSON

	RuleNotPolicy = "not-a-policy" // the text is something else
)

// ReadAll reads the text of a policy. It fails if the text is larger than MaxSize.
func ReadAll(r io.Reader) ([]byte, error) {
	return readfile.All(r, MaxSize)
}

// Parse reads a policy. Messages refer to it by name. It accepts JSON (RFC 8259)
// and, like lws, comments from "#" to the end of the line. It never fails:
// Document.Syntax holds the errors, and the document as much as could be read.
//
// Texts that are not JSON but that lws reads as intended are reported by the rule
// lax-syntax: a comma before a closing "]", one extra "}" at that place, and zeros
// before a number (lib/misc/lejp.c; measured with lws 4.3.10 and 5.0.0).
//
// If the position of a mistake is certain, Document.Syntax has one diagnostic for
// it, with a fix; see [Document.Corrected].
func Parse(name string, text []byte) *Document {
	d, p := parse(&Source{Name: name, Text: string(text)})
	if HasErrors(d.Syntax) {
		correct(d, p)
	}
	return d
}

// Scan is like [Parse] but does not search for corrections. It takes a few
// milliseconds whatever the mistakes are, which suits editors. Syntax errors have
// no fixes, and [Document.Corrected] returns the document itself.
func Scan(name string, text []byte) *Document {
	d, _ := parse(&Source{Name: name, Text: string(text)})
	if HasErrors(d.Syntax) {
		for i := range d.Syntax {
			d.Syntax[i].Fixes = nil
		}
	}
	return d
}

// ParseTemplate is like [Parse] for a text with placeholders of the form @NAME@. A
// placeholder in the place of a value stands for any value; the value there has the
// Kind Invalid. A placeholder in the place of a setting or definition stands for
// any number of them; it is skipped and listed in Source.Skipped.
func ParseTemplate(name string, text []byte) *Document {
	d, p := parse(&Source{Name: name, Text: string(text), Template: true})
	if HasErrors(d.Syntax) {
		correct(d, p)
	}
	return d
}

// parse reads a policy without correcting it.
func parse(src *Source) (*Document, *parser) {
	p := &parser{src: src, text: src.Text}
	d := &Document{Source: src}
	if problem, at := p.unreadable(); problem != "" {
		p.errorf(at, at, "%s", problem)
		d.Root.Span = Span{src, at, at}
		d.Tail = src.Text
		d.Syntax = p.diags
		return d, p
	}
	p.document(d)
	d.Syntax = SortDiagnostics(slices.Clone(p.diags))
	return d, p
}

// document reads the text into a document.
func (p *parser) document(d *Document) {
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
	d.damaged = p.damaged
}

// bom is the byte order mark that some editors put before UTF-8.
const bom = "\ufeff"

type parser struct {
	src  *Source
	text string
	pos  int

	open    []int // offsets of the open brackets
	diags   []Diagnostic
	around  []int // the innermost open bracket at each of diags
	tooMany bool  // maxSyntax was reached
	ended   bool  // the text ended inside an object, array or string
	stray   bool  // a bracket that lws skips was reported
	damaged bool  // the errors so far leave the structure in doubt
	guessed bool  // a fix was offered for a bracket that may belong elsewhere

	clean bool // panic at the first error

	// The nodes of the document, and the children read so far of the open objects
	// and arrays.
	objects      slab[Object]
	arrays       slab[Array]
	members      slab[Member]
	elements     slab[Element]
	memberStack  []*Member
	elementStack []*Element

	top   string // the top-level key at the current position
	key   string // the innermost key
	depth int    // of the object of that key
}

// unreadable returns why and where the text cannot be parsed at all, or "".
func (p *parser) unreadable() (problem string, at int) {
	switch {
	case len(p.text) > MaxSize:
		return fmt.Sprintf("the text is larger than %d MiB, the limit for a policy", MaxSize>>20), 0
	case strings.HasPrefix(p.text, "\xff\xfe"), strings.HasPrefix(p.text, "\xfe\xff"):
		return "the text is UTF-16: save it as UTF-8", 0
	case strings.IndexByte(p.text, 0) >= 0:
		return "the file is not text: it holds a NUL byte", strings.IndexByte(p.text, 0)
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
	if p.clean && d.Severity == Error {
		panic(unclean{})
	}
	switch {
	case len(p.diags) < maxSyntax:
		p.diags = append(p.diags, d)
		p.around = append(p.around, p.innermost())
	case !p.tooMany:
		p.damaged = true
		p.tooMany = true
		p.diags = append(p.diags, Diagnostic{Rule: RuleSyntax, Severity: Error, Span: d.Span,
			Message: "more syntax errors follow: fix those above first"})
	}
}

// innermost returns the offset of the innermost open bracket.
func (p *parser) innermost() int {
	if len(p.open) == 0 {
		return 0
	}
	return p.open[len(p.open)-1]
}

func (p *parser) span(start, end int) Span { return Span{p.src, start, end} }

func (p *parser) errorf(start, end int, format string, args ...any) {
	if p.clean {
		panic(unclean{})
	}
	p.report(Diagnostic{Rule: RuleSyntax, Severity: Error, Span: p.span(start, end), Message: fmt.Sprintf(format, args...)})
}

// fixf reports an error that replacing the text from start to end fixes.
func (p *parser) fixf(start, end int, fix, newText, format string, args ...any) {
	if p.clean {
		panic(unclean{})
	}
	p.report(p.fixable(start, end, fix, newText, fmt.Sprintf(format, args...)))
}

// laxf is like fixf for text that lws reads despite the error.
func (p *parser) laxf(start, end int, fix, newText, lws, format string, args ...any) {
	d := p.fixable(start, end, fix, newText, fmt.Sprintf(format, args...))
	d.lax(lws)
	p.report(d)
}

func (p *parser) fixable(start, end int, fix, newText, message string) Diagnostic {
	return Diagnostic{Rule: RuleSyntax, Severity: Error, Span: p.span(start, end), Message: message,
		Fixes: []Fix{newFix(fix, p.span(start, end), newText)}}
}

// lax marks a syntax error as one that lws tolerates.
func (d *Diagnostic) lax(lws string) {
	d.Rule, d.Severity = RuleLaxSyntax, Warning
	d.Message += "; " + lws
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
			p.fixf(start, start+2, `write "#"`, "#", `lws does not read "//" comments: a comment runs from "#" to the end of the line`)
		case c == '/' && strings.HasPrefix(p.text[p.pos:], "/*"):
			start := p.pos
			if end := strings.Index(p.text[start+2:], "*/"); end >= 0 {
				p.pos = start + 2 + end + 2
			} else {
				p.pos = len(p.text)
			}
			p.errorf(start, start+2, `lws does not read "/*" comments: a comment runs from "#" to the end of the line`)
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(p.text[p.pos:])
			if !unicode.IsSpace(r) && r != '\ufeff' && r != '\u200b' {
				return
			}
			p.fixf(p.pos, p.pos+size, "write a space", " ", "the character U+%04X only looks like a space: write a space", r)
			p.pos += size
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

// value reads a value and the space around it. If there is none, it reports that
// and returns a value of Kind Missing.
func (p *parser) value() Value {
	start := p.pos
	p.space()
	return p.valueAfter(start)
}

// valueAfter reads a value. The text from start up to here is the space before it.
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
		v.Kind = Invalid
	case c == '{':
		v.Kind, v.Object = ObjectKind, p.object()
	case c == '[':
		v.Kind, v.Array = ArrayKind, p.array()
	case c == '"':
		v.Kind = p.str()
	default:
		v.Kind = p.word()
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

// closer handles a closing bracket in an object or array that want closes. It
// returns the bracket and true, or "" and true if the bracket closes an enclosing
// object or array. If the bracket closes nothing, it skips it and returns false.
// after is set after an element.
func (p *parser) closer(want byte, after bool) (text string, ends bool) {
	c := p.text[p.pos]
	if c == want {
		p.pos++
		return p.text[p.pos-1 : p.pos], true
	}
	opener := p.span(p.open[len(p.open)-1], p.open[len(p.open)-1]+1)
	d := Diagnostic{Rule: RuleSyntax, Severity: Error, Span: p.span(p.pos, p.pos+1),
		Related: []Related{{opener, fmt.Sprintf("%q was opened here", opener.Text())}}}
	next := strings.TrimLeft(p.text[p.pos+1:], " \t\r\n")
	encloses := slices.ContainsFunc(p.open[:len(p.open)-1], func(at int) bool { return p.text[at]+2 == c })
	if encloses && (next == "" || next[0] != want) {
		d.Message = fmt.Sprintf("%q is missing before this %q; lws refuses the policy or waits for the rest of it", string(want), string(c))
		d.Fixes = []Fix{newFix(fmt.Sprintf("insert %q", string(want)), p.span(p.pos, p.pos), string(want))}
		p.guessed, p.damaged = true, true
		p.report(d)
		return "", true
	}
	d.Message = fmt.Sprintf("this %q closes nothing: %q is open", string(c), opener.Text())
	d.Fixes = []Fix{newFix("remove it", d.Span, "")}
	p.guessed = true
	if after && c == '}' && next != "" && next[0] == ']' && !p.stray {
		p.stray = true // lws tolerates one
		d.lax("lws ignores it")
	} else {
		p.damaged = true
	}
	p.report(d)
	p.pos++
	if p.space(); p.peek() == ',' {
		p.pos++ // the comma after the element before the bracket
	}
	return "", false
}

// eof reports once that the text ends inside objects or arrays.
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
	d.Message += "; lws loads what it has read so far"
	for i := len(p.open) - 1; i >= 0 && len(d.Related) < 4; i-- {
		d.Related = append(d.Related, Related{p.span(p.open[i], p.open[i]+1), "not closed"})
	}
	p.report(d)
}

func (p *parser) object() *Object {
	o := p.objects.new()
	p.push()
	from := len(p.memberStack)
	o.Tail, o.Close = p.inObject(from)
	o.Members = append(o.Members, p.memberStack[from:]...)
	p.memberStack = p.memberStack[:from]
	p.pop()
	return o
}

// inObject reads the members of an object and appends them to p.memberStack, the
// first one at index first. It returns the text after the last member and the
// closing bracket.
func (p *parser) inObject(first int) (tail, shut string) {
	start := p.pos // of the text that is not in the tree yet
	for {
		p.space()
		switch c := p.peek(); {
		case p.pos == len(p.text):
			p.eof()
			return p.text[start:], ""
		case c == '}' || c == ']':
			tail := p.text[start:p.pos]
			if text, ends := p.closer('}', false); ends {
				if n := len(p.memberStack); n > first && p.memberStack[n-1].Comma != "" {
					at := p.memberStack[n-1].end()
					p.fixf(at, at+1, "remove the comma", "", "a comma before %q is not JSON, and lws refuses it", "}")
				}
				return tail, text
			}
		case c == ',':
			p.fixf(p.pos, p.pos+1, "remove it", "", "this comma follows nothing")
			p.pos++
		case c == ':':
			p.damaged = true
			p.errorf(p.pos, p.pos+1, "a key is missing before \":\"")
			p.pos++
		case c == '"':
			p.memberStack = append(p.memberStack, p.member(start))
			start = p.pos
		case c == '{' || c == '[':
			p.damaged = true
			p.errorf(p.pos, p.pos+1, "want a key in double quotes, not %q", string(c))
			from := p.pos
			v := p.valueAfter(p.pos)
			m := p.members.new()
			*m = Member{Name: Name{Before: p.text[start:from], Span: p.span(from, from)}, Value: v, Comma: p.comma(&v, true)}
			p.memberStack = append(p.memberStack, m)
			start = p.pos
		default:
			if p.skipPlaceholder() {
				continue
			}
			p.memberStack = append(p.memberStack, p.member(start))
			start = p.pos
		}
	}
}

// skipPlaceholder skips a template placeholder that stands for members, and the
// comma after it.
func (p *parser) skipPlaceholder() bool {
	if !p.src.Template || p.peek() != '@' {
		return false
	}
	at := placeholder.FindStringIndex(p.text[p.pos:])
	if at == nil || at[0] != 0 || at[1] == 0 {
		return false
	}
	p.src.Skipped = append(p.src.Skipped, p.span(p.pos, p.pos+at[1]))
	p.pos += at[1]
	if p.space(); p.peek() == ',' {
		p.pos++
	}
	return true
}

// end returns the offset of the comma after a member.
func (m *Member) end() int { return m.Value.Span.End + len(m.Value.After) }

// member reads a member. The text from start up to here is the space before its
// key.
func (p *parser) member(start int) *Member {
	m := p.members.new()
	m.Name.Before = p.text[start:p.pos]
	from := p.pos
	if p.peek() == '"' {
		m.NameKind = p.str()
		m.Key = Unquote(p.text[from:p.pos])
	} else {
		m.NameKind = Invalid
		m.Key = p.bareKey()
	}
	m.Name.Span = p.span(from, p.pos)
	start = p.pos
	p.space()
	m.Name.After = p.text[start:p.pos]
	defer func(key string, depth int) { p.key, p.depth = key, depth }(p.key, p.depth)
	if p.key, p.depth = m.Key, len(p.open); p.depth == 1 {
		p.top = m.Key
	}
	switch c := p.peek(); {
	case c == ':' || c == '=' || c == ';':
		at := p.pos
		for p.pos < len(p.text) && strings.IndexByte(":=>;", p.text[p.pos]) >= 0 && p.pos-at < 2 {
			p.pos++
		}
		if text := p.text[at:p.pos]; text == ":" {
			m.Colon = true
		} else {
			m.Name.After += text
			p.fixf(at, p.pos, `write ":"`, ":", `want ":" after a key, not %q`, text)
		}
		m.Value = p.value()
		m.Comma = p.comma(&m.Value, true)
		return m
	case c == ',' || c == '}' || c == ']' || p.pos == len(p.text):
		if p.pos < len(p.text) {
			p.errorf(m.Name.Span.Start, m.Name.Span.End, "the key %s has no value", QuoteName(m.Key))
		}
		m.Value.Span = p.span(p.pos, p.pos)
		m.Comma = p.comma(nil, true)
		return m
	}
	if m.NameKind == Invalid {
		m.Value = p.value()
		m.Comma = p.comma(&m.Value, true)
		return m
	}
	at, missing := m.Name.Span.End, `":" is missing after the key %s`
	rest := p.text[p.pos:]
	// If the key holds a colon, a missing quotation mark is more likely.
	if startsValue.MatchString(rest) && !isKey.MatchString(rest) && strings.IndexByte(m.Key, ':') < 0 {
		p.fixf(at, at, `insert ":"`, ":", missing, QuoteName(m.Key))
	} else {
		p.errorf(at, at, missing, QuoteName(m.Key))
	}
	m.Value = p.value()
	m.Comma = p.comma(&m.Value, true)
	return m
}

// setting returns the key of the setting whose value is being read, or nil if the
// table does not have it.
func (p *parser) setting() *Key {
	section, at := Section(p.top), 3 // the depth of the settings of a definition
	if info, ok := sections[section]; !ok {
		section, at = Top, 1
	} else if info.keyed {
		at = 4
	}
	if p.depth != at {
		return nil
	}
	return LookupKey(section, p.key)
}

var identifier = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$-]*$`)

// bareKey reads and returns a key that is not in double quotes.
func (p *parser) bareKey() string {
	from := p.pos
	key, quoted := p.quoted()
	if !quoted {
		p.token()
		word := p.text[from:p.pos]
		if i := strings.IndexByte(word, '='); i > 0 {
			p.pos = from + i
		}
		key = p.text[from:p.pos]
	}
	rest := strings.TrimLeft(p.text[p.pos:], " \t")
	if (quoted || identifier.MatchString(key)) && rest != "" && (rest[0] == ':' || rest[0] == '=') {
		p.fixf(from, p.pos, "write "+Quote(key), Quote(key), "write keys in double quotes: %s", Quote(key))
	} else {
		p.damaged = true
		p.errorf(from, p.pos, "%s is not a key in double quotes", QuoteName(key))
	}
	return key
}

// quotes maps the marks that people, or their word processors, write instead of
// double quotes to those that may close them.
var quotes = map[rune]string{'\'': "'", '“': "”“\"", '”': "”\"", '„': "“”\"", '‟': "”\"", '«': "»", '‘': "’"}

// quoted reads a text in quotation marks other than double quotes and returns what
// they enclose. It reports false if there is none that ends on its line and needs
// no escapes.
func (p *parser) quoted() (text string, ok bool) {
	r, size := utf8.DecodeRuneInString(p.text[p.pos:])
	ends, ok := quotes[r]
	if !ok {
		return "", false
	}
	rest := p.text[p.pos+size:]
	i := strings.IndexAny(rest, ends+"\"\\\n")
	if i < 0 {
		return "", false
	}
	end, endSize := utf8.DecodeRuneInString(rest[i:])
	if !strings.ContainsRune(ends, end) {
		return "", false
	}
	p.pos += size + i + endSize
	return rest[:i], true
}

// comma reads the comma after a member or an element. It reports a missing one,
// except before a closing bracket. After a member it offers a fix only if a key
// follows.
func (p *parser) comma(after *Value, member bool) string {
	switch c := p.peek(); {
	case c == ',':
		p.pos++
		return ","
	case c == ';':
		p.fixf(p.pos, p.pos+1, `write ","`, ",", `want "," after a value, not ";"`)
		p.pos++
		return ";"
	case p.pos == len(p.text), c == '}' || c == ']', c == ':':
		return ""
	}
	at := p.pos
	if after != nil {
		at = after.Span.End
		if after.Kind == Invalid || after.Kind == Missing {
			return "" // already reported
		}
	}
	const missing = `"," is missing here, before %s`
	if rest := p.text[p.pos:]; member && (notKey.MatchString(rest) || !startsKey.MatchString(rest)) {
		p.errorf(at, at, missing, p.upcoming())
	} else {
		p.fixf(at, at, `insert ","`, ",", missing, p.upcoming())
	}
	return ""
}

var (
	// notKey matches a string before a comma or a closing bracket.
	notKey      = regexp.MustCompile(`^"[^"\\\n]*"\s*[,\]}]`)
	isKey       = regexp.MustCompile(`^"[^"\\\n]*"\s*:`)
	startsKey   = regexp.MustCompile(`^["'A-Za-z_$]`)
	startsValue = regexp.MustCompile(`^["'A-Za-z0-9{\[-]`)
)

// upcoming returns the start of the next token, for a message.
func (p *parser) upcoming() string {
	end := p.pos + 1
	for end < len(p.text) && strings.IndexByte(" \t\r\n,:[]{}#", p.text[end]) < 0 {
		end++
	}
	return QuoteName(strings.Trim(p.text[p.pos:end], `"`))
}

func (p *parser) array() *Array {
	a := p.arrays.new()
	p.push()
	from := len(p.elementStack)
	a.Tail, a.Close = p.inArray(from)
	a.Elems = append(a.Elems, p.elementStack[from:]...)
	p.elementStack = p.elementStack[:from]
	p.pop()
	return a
}

// inArray is like inObject for the elements of an array.
func (p *parser) inArray(first int) (tail, shut string) {
	start := p.pos
	for {
		p.space()
		switch c := p.peek(); {
		case p.pos == len(p.text):
			p.eof()
			return p.text[start:], ""
		case c == '}' || c == ']':
			tail := p.text[start:p.pos]
			if text, ends := p.closer(']', len(p.elementStack) > first && p.elementStack[len(p.elementStack)-1].Comma == ""); ends {
				if n := len(p.elementStack); n > first && p.elementStack[n-1].Comma != "" {
					last := &p.elementStack[n-1].Value
					at := last.Span.End + len(last.After)
					p.laxf(at, at+1, "remove the comma", "", "lws ignores it", "a comma before %q is not JSON", "]")
				}
				return tail, text
			}
		case c == ',':
			p.fixf(p.pos, p.pos+1, "remove it", "", "this comma follows nothing")
			p.pos++
		case c == ':':
			p.damaged = true
			p.errorf(p.pos, p.pos+1, "\":\" in an array, whose elements have no keys")
			p.pos++
		default:
			e := p.elements.new()
			e.Value = p.valueAfter(start)
			e.Comma = p.comma(&e.Value, false)
			p.elementStack = append(p.elementStack, e)
			start = p.pos
		}
	}
}

// skipDeep skips an object or array that is nested too deeply.
func (p *parser) skipDeep() {
	p.errorf(p.pos, p.pos+1, "nested more than %d deep; lws 5.0 reads 62 objects, earlier versions fewer", MaxDepth)
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
	p.ended = true // report one error only
}

// token skips a word.
func (p *parser) token() {
	p.pos++
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n,:[]{}\"#;", p.text[p.pos]) < 0 {
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
	if text, ok := p.quoted(); ok {
		want := Quote(text)
		p.fixf(start, p.pos, "write "+want, want, "write strings in double quotes: %s", want)
		return Invalid
	}
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
		p.laxf(start, p.pos, "write "+want, want, "lws ignores the zeros", "a number does not start with a zero: write %s", want)
		return Number
	case strings.EqualFold(w, "true"), strings.EqualFold(w, "false"), strings.EqualFold(w, "null"):
		want := strings.ToLower(w)
		p.fixf(start, p.pos, "write "+want, want, "%s is written %s", w, want)
	default:
		what, k := QuoteName(w)+" is not a JSON value", p.setting()
		if p.src.Template && Placeholder(w) != "" {
			return Invalid
		}
		if Placeholder(w) == w && (k == nil || !k.Is("string")) {
			p.errorf(start, p.pos, "%s is a placeholder: check the policy after it is filled in", QuoteName(w))
		} else if want, ok := k.convert(w); ok {
			p.fixf(start, p.pos, "write "+want, want, "%s: write %s", what, want)
		} else if k == nil {
			p.errorf(start, p.pos, "%s", what)
		} else if slices.Equal(k.Types, []string{"string"}) {
			p.fixf(start, p.pos, "write "+Quote(w), Quote(w), "%s: write strings in double quotes", what)
		} else {
			p.errorf(start, p.pos, "%s: %s is %s", what, k.Name, article(k.Types[0]))
		}
	}
	return Invalid
}

// digits reports whether w is a plain decimal number, as nearly all are.
func digits(w string) bool {
	for i := range len(w) {
		if w[i] < '0' || w[i] > '9' {
			return false
		}
	}
	return w == "0" || w[0] != '0'
}

// str skips a string and reports mistakes in it. It returns Invalid if the string
// is not closed.
func (p *parser) str() Kind {
	start := p.pos
	p.pos++
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return String
		case c == '\n', c == '\r' && strings.HasPrefix(p.text[p.pos:], "\r\n"):
			if p.wrapped(start) {
				return String
			}
			p.damaged = true
			p.errorf(start, p.pos, "the string is not closed on its line")
			return Invalid
		case c < 0x20:
			p.fixf(p.pos, p.pos+1, "escape it", fmt.Sprintf(`\u%04x`, c), "control character 0x%02x in a string: write it as an escape", c)
			p.pos++
		case c == '\\':
			p.escape()
		default:
			p.pos++
		}
	}
	p.damaged = true
	p.errorf(start, start+1, "the string is not closed before the end of the text")
	p.ended = true
	return Invalid
}

// wrappedBase64 matches base64 over several lines, with or without the first and
// last line of PEM, up to the closing double quote.
var wrappedBase64 = regexp.MustCompile(`^\s*(?:-----BEGIN [A-Z0-9 ]+-----\s)?([A-Za-z0-9+/_-]{16,}(?:[ \t\r]*\n[ \t]*[A-Za-z0-9+/_-]+)*={0,2})\s*(?:-----END [A-Z0-9 ]+-----\s*)?"`)

// wrapped reads the rest of a string that contains base64 over several lines. It
// reports false if the string at start is not one.
func (p *parser) wrapped(start int) bool {
	at := wrappedBase64.FindStringSubmatchIndex(p.text[start+1:])
	if at == nil {
		return false
	}
	base := start + 1
	p.pos = base + at[1]
	p.errorf(start, p.pos, "write strings on one line: join the %d lines of this one", strings.Count(p.text[start:p.pos], "\n")+1)
	var edits []Edit // removals only, so that no report repeats a private key
	from := base
	for line := range strings.FieldsSeq(p.text[base+at[2] : base+at[3]]) {
		to := max(from, base+at[2])
		to += strings.Index(p.text[to:], line)
		if from < to {
			edits = append(edits, Edit{p.span(from, to), ""})
		}
		from = to + len(line)
	}
	if end := p.pos - 1; from < end {
		edits = append(edits, Edit{p.span(from, end), ""})
	}
	if !p.tooMany {
		p.diags[len(p.diags)-1].Fixes = []Fix{{Message: "join its lines", Edits: edits, Safe: true}}
	}
	return true
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
	if line, _ := p.src.Line(start); strings.Contains(line, `\"`) {
		p.errorf(start, p.pos, "%s is not a JSON escape", p.text[start:p.pos]) // a quotation mark may be missing
		return
	}
	p.fixf(start, start+1, `write "\\"`, `\\`, "%s is not a JSON escape: for a backslash write \\\\", p.text[start:p.pos])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// finish checks the text after the root value.
func (p *parser) finish(d *Document) {
	switch {
	case d.Root.Kind == Missing || p.ended:
	case d.Root.Kind != ObjectKind:
		p.errorf(d.Root.Span.Start, d.Root.Span.Start+1, "a policy is a JSON object, not %s", d.Root.Kind)
	case d.Tail != "":
		at := len(p.text) - len(d.Tail)
		p.damaged = true
		p.errorf(at, at+1, "text after the end of the policy: whether lws reads it depends on its buffers")
	}
}
