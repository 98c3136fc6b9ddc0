package schema

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The distance from an error within which its cause is searched.
const (
	nearBytes    = 400  // for a missing quotation mark, on the line of the error
	nearTokens   = 8    // for an extra character
	regionTokens = 1000 // for a bracket
)

// candidates returns the one-character mistakes that may cause an error inside the
// bracket at an offset: a missing or an extra character. The parser's own diagnosis
// comes first. Brackets are left out if they could be missing in too many places.
func candidates(d *Document, first Diagnostic, bracket int) []Diagnostic {
	c := &candidateList{src: d.Source, seen: map[string]bool{}}
	region := suspects(tokens(d.Source.Text, first.Span.End), bracket)
	few := len(region) <= regionTokens
	if len(first.Fixes) > 0 && (few || !editsBracket(first.Fixes[0].Edits[0])) {
		c.list = append(c.list, first)
	}
	c.quotes(first)
	if few {
		c.brackets(region)
		c.strays(region[max(0, len(region)-nearTokens):])
	}
	return c.list
}

// A candidateList collects mistakes without duplicates.
type candidateList struct {
	src  *Source
	list []Diagnostic
	seen map[string]bool
}

// missing adds the mistake of a missing character at offset.
func (c *candidateList) missing(offset int, char string) {
	name := characterName(char)
	c.add(offset, offset, char, name+" is missing here", "insert "+name)
}

// stray adds the mistake of an extra character at offset.
func (c *candidateList) stray(offset int) {
	c.add(offset, offset+1, "", characterName(c.src.Text[offset:offset+1])+" is one too many here", "remove it")
}

func characterName(char string) string {
	if char == `"` {
		return "a double quote"
	}
	return Quote(char)
}

func (c *candidateList) add(start, end int, text, message, fix string) {
	if key := fmt.Sprint(start, end, text); !c.seen[key] {
		c.seen[key] = true
		at := Span{c.src, start, end}
		c.list = append(c.list, Diagnostic{Rule: RuleSyntax, Severity: Error, Span: at, Message: message, Fixes: []Fix{newFix(fix, at, text)}})
	}
}

// quotes adds the places on the line of an error where a quotation mark may be
// missing: the ends of words and both sides of punctuation.
func (c *candidateList) quotes(first Diagnostic) {
	text := c.src.Text
	line, start := c.src.Line(first.Span.Start)
	from, to := max(start, first.Span.Start-nearBytes), min(start+len(line), first.Span.End+nearBytes)
	for i := from; i <= to; i++ {
		switch {
		case i > 0 && text[i-1] == '\\', i < len(text) && !utf8.RuneStart(text[i]): // in an escape or character
		case i == from || i == to || class(text[i-1]) != class(text[i]) || class(text[i]) == 0:
			c.missing(i, `"`)
		}
	}
}

// brackets adds the places where a bracket may be missing: a closing one after a
// value, or an opening one before it.
func (c *candidateList) brackets(region []Span) {
	before := byte(':')
	for _, t := range region {
		first := c.src.Text[t.Start]
		if first != ',' && first != ':' {
			c.missing(t.End, "}")
			c.missing(t.End, "]")
			if strings.IndexByte(",:[{", before) >= 0 {
				c.missing(t.Start, "{")
				c.missing(t.Start, "[")
			}
		}
		before = first
	}
}

// strays adds punctuation that may be extra.
func (c *candidateList) strays(region []Span) {
	for _, t := range region {
		if strings.IndexByte(`{}[],:"`, c.src.Text[t.Start]) >= 0 {
			c.stray(t.Start)
		}
		if c.src.Text[t.Start] == '"' && t.End > t.Start+1 {
			c.stray(t.End - 1)
		}
	}
}

// suspects returns the tokens that may hold the mistake that shows at the last of
// ts: those after the bracket at an offset, or after the last key inside it.
func suspects(ts []Span, bracket int) []Span {
	from, depth, opened := 0, 0, false
	for i, t := range ts {
		switch t.Source.Text[t.Start] {
		case '{', '[':
			depth++
			opened = opened || t.Start == bracket
		case '}', ']':
			depth--
		}
		if t.Start == bracket {
			from = i
		} else if opened && depth == 1 && i+1 < len(ts) && ts[i+1].Text() == ":" && i < len(ts)-2 {
			from = i
		}
	}
	return ts[from:]
}

// class returns 1 for letters and digits, 2 for space and 0 for other bytes.
func class(c byte) int {
	switch {
	case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80:
		return 1
	case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		return 2
	}
	return 0
}

// tokens returns the tokens of a text up to the first that ends at or after an
// offset.
func tokens(text string, upTo int) []Span {
	src := &Source{Text: text}
	p := &parser{src: src, text: text}
	var list []Span
	for p.pos < len(text) {
		if p.space(); p.pos == len(text) {
			break
		}
		start := p.pos
		switch {
		case strings.IndexByte("{}[],:", p.peek()) >= 0:
			p.pos++
		case p.peek() == '"':
			p.str()
		default:
			p.token()
		}
		list = append(list, Span{src, start, p.pos})
		if p.pos >= upTo {
			break
		}
	}
	return list
}
