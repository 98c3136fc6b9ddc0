package schema

import (
	"errors"
	"fmt"
	"strings"
)

// Format prints a policy in the one layout that sspolicy has for it: two spaces
// a level, an entry and a setting a line, short lists on one line. Comments
// stay with what they are about, and single blank lines stay. The result means
// the same, and formatting it again changes nothing.
//
// It returns an error if the document has syntax errors, or if the result would
// be larger than MaxSize.
func Format(d *Document) (string, error) {
	if HasErrors(d.Syntax) {
		return "", errors.New("a policy with syntax errors cannot be formatted")
	}
	f := &formatter{}
	above, _ := comments(d.Root.Before)
	for _, c := range above {
		f.line(c.text)
	}
	f.value(&d.Root)
	first := true
	after, _ := comments(d.Root.After + d.Tail)
	for _, c := range after {
		if first && !c.own {
			f.b.WriteByte(' ')
			f.b.WriteString(c.text)
		} else {
			f.newline()
			f.b.WriteString(c.text)
		}
		first = false
	}
	f.b.WriteByte('\n')
	if f.b.Len() > MaxSize {
		return "", fmt.Errorf("formatted it would be larger than %d MiB, the limit for a policy", MaxSize>>20)
	}
	return f.b.String(), nil
}

type formatter struct {
	b     strings.Builder
	depth int // of objects and arrays that are open
}

func (f *formatter) line(s string) {
	f.b.WriteString(s)
	f.newline()
}

// newline starts a new line and indents it.
func (f *formatter) newline() {
	f.b.WriteByte('\n')
	for range f.depth {
		f.b.WriteString("  ")
	}
}

// An item is a member or element with the comments around it.
type item struct {
	blank    bool     // a blank line stands above it
	above    []string // comments on lines of their own
	member   *Member  // nil in an array
	value    *Value
	trailing string // comment at the end of its line
}

// A comment is one that stands in white space.
type comment struct {
	text  string
	own   bool // it is on a line of its own
	blank bool // after a blank line
}

// comments returns the comments in white space, and whether a blank line
// stands at its end.
func comments(space string) (list []comment, blank bool) {
	if !strings.ContainsAny(space, "\n#") {
		return nil, false
	}
	empty := 0
	lines := strings.Split(space, "\n")
	for i, line := range lines {
		switch text := strings.TrimSpace(strings.TrimPrefix(line, bom)); {
		case strings.IndexByte(text, '#') >= 0:
			list = append(list, comment{text[strings.IndexByte(text, '#'):], i > 0, empty > 0})
			empty = 0
		case i > 0 && i < len(lines)-1:
			empty++
		}
	}
	return list, empty > 0
}

// items collects the members or elements of a value, and the comments that
// stand behind the last one.
func items(v *Value) (list []item, tail []string) {
	add := func(before string, it item) {
		above, blank := comments(before)
		for i, c := range above {
			if !c.own && i == 0 && len(list) > 0 && list[len(list)-1].trailing == "" {
				list[len(list)-1].trailing = c.text
				continue
			}
			it.blank = it.blank || c.blank && len(it.above) == 0
			it.above = append(it.above, c.text)
		}
		it.blank = it.blank || blank && len(it.above) == 0
		it.blank = it.blank && len(list) > 0
		if it.member != nil {
			for _, space := range []string{it.member.Name.After, it.value.Before} {
				inside, _ := comments(space)
				for _, c := range inside {
					it.above = append(it.above, c.text)
				}
			}
		}
		list = append(list, it)
	}
	var left string // what stands before the next comma or bracket
	var last string
	if v.Object != nil {
		for _, m := range v.Object.Members {
			add(left+m.Name.Before, item{member: m, value: &m.Value})
			left = m.Value.After
		}
		last = v.Object.Tail
	} else {
		for _, e := range v.Array.Elems {
			add(left+e.Value.Before, item{value: &e.Value})
			left = e.Value.After
		}
		last = v.Array.Tail
	}
	behind, _ := comments(left + last)
	for i, c := range behind {
		if !c.own && i == 0 && len(list) > 0 && list[len(list)-1].trailing == "" {
			list[len(list)-1].trailing = c.text
		} else {
			tail = append(tail, c.text)
		}
	}
	return list, tail
}

func (f *formatter) value(v *Value) {
	if v.Object == nil && v.Array == nil {
		f.b.WriteString(v.Raw)
		return
	}
	if f.inline(v) {
		writeInline(&f.b, v)
		return
	}
	open, shut := byte('{'), byte('}')
	if v.Array != nil {
		open, shut = '[', ']'
	}
	f.b.WriteByte(open)
	list, tail := items(v)
	f.depth++
	for i, it := range list {
		if it.blank {
			f.b.WriteByte('\n')
		}
		f.newline()
		for _, c := range it.above {
			f.line(c)
		}
		if it.member != nil {
			f.b.WriteString(it.member.Name.Raw)
			f.b.WriteString(": ")
		}
		f.value(it.value)
		if i < len(list)-1 {
			f.b.WriteByte(',')
		}
		if it.trailing != "" {
			f.b.WriteByte(' ')
			f.b.WriteString(it.trailing)
		}
	}
	for _, c := range tail {
		f.newline()
		f.b.WriteString(c)
	}
	f.depth--
	f.newline()
	f.b.WriteByte(shut)
}

// maxInline is the most bytes of a list on one line.
const maxInline = 80

// inline reports whether a value goes on one line. By its depth, an object is
// the policy (0), an entry of a section (2), what that defines (3) or some
// setting of it; the arrays between are the sections (1).
func (f *formatter) inline(v *Value) bool {
	switch {
	case hasComments(v):
		return false
	case len(v.Members())+len(v.Elems()) == 0:
		return true
	case v.Object != nil && f.depth == 2:
		for _, m := range v.Object.Members {
			if m.Value.Object != nil {
				return false
			}
		}
		return true
	case f.depth <= 3 && (v.Object != nil || f.depth <= 1):
		return false
	}
	var b strings.Builder
	writeInline(&b, v)
	return b.Len() <= maxInline
}

// hasComments reports whether there are comments inside of a value.
func hasComments(v *Value) bool {
	has := func(space string) bool { return strings.IndexByte(space, '#') >= 0 }
	for _, m := range v.Members() {
		if has(m.Name.Before) || has(m.Name.After) || has(m.Value.Before) || has(m.Value.After) || hasComments(&m.Value) {
			return true
		}
	}
	for _, e := range v.Elems() {
		if has(e.Value.Before) || has(e.Value.After) || hasComments(&e.Value) {
			return true
		}
	}
	return v.Object != nil && has(v.Object.Tail) || v.Array != nil && has(v.Array.Tail)
}

func writeInline(b *strings.Builder, v *Value) {
	switch {
	case v.Object != nil:
		b.WriteByte('{')
		for i, m := range v.Object.Members {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(m.Name.Raw)
			b.WriteString(": ")
			writeInline(b, &m.Value)
		}
		b.WriteByte('}')
	case v.Array != nil:
		b.WriteByte('[')
		for i, e := range v.Array.Elems {
			if i > 0 {
				b.WriteString(", ")
			}
			writeInline(b, &e.Value)
		}
		b.WriteByte(']')
	default:
		b.WriteString(v.Raw)
	}
}
