package schema

import (
	"errors"
	"fmt"
	"strings"
)

// Format prints a policy in sspolicy's layout: two spaces per level, one line per
// entry and setting, short lists on one line. Comments stay with what they
// describe, and single blank lines stay. The result has the same meaning, and
// formatting it again changes nothing.
//
// Format fails if the document has syntax errors, or if the result would be larger
// than MaxSize.
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
	depth int // number of open objects and arrays
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
	blank    bool     // follows a blank line
	above    []string // comments on lines of their own
	member   *Member  // nil in an array
	value    *Value
	trailing string // comment at the end of its line
}

type comment struct {
	text  string
	own   bool // on a line of its own
	blank bool // follows a blank line
}

// comments returns the comments in white space, and whether it ends in a blank line.
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

// An itemList collects the members or elements of a value.
type itemList []item

// comments returns the comments in the white space after the last item, and whether
// the space ends in a blank line. A comment on the line of that item becomes its
// trailing comment.
func (l itemList) comments(space string) (rest []comment, blank bool) {
	rest, blank = comments(space)
	if len(rest) > 0 && !rest[0].own && len(l) > 0 && l[len(l)-1].trailing == "" {
		l[len(l)-1].trailing = rest[0].text
		rest = rest[1:]
	}
	return rest, blank
}

// add adds an item that follows the white space.
func (l *itemList) add(space string, it item) {
	above, blank := l.comments(space)
	if len(above) > 0 {
		blank = above[0].blank
	}
	it.blank = blank && len(*l) > 0
	if it.member != nil {
		for _, space := range []string{it.member.Name.After, it.value.Before} {
			inside, _ := comments(space)
			above = append(above, inside...)
		}
	}
	for _, c := range above {
		it.above = append(it.above, c.text)
	}
	*l = append(*l, it)
}

// items returns the members or elements of a value, and the comments after the last
// one.
func items(v *Value) (list itemList, tail []comment) {
	var after string // white space before the next comma or bracket
	for _, m := range v.Members() {
		list.add(after+m.Name.Before, item{member: m, value: &m.Value})
		after = m.Value.After
	}
	for _, e := range v.Elems() {
		list.add(after+e.Value.Before, item{value: &e.Value})
		after = e.Value.After
	}
	if v.Object != nil {
		after += v.Object.Tail
	} else {
		after += v.Array.Tail
	}
	tail, _ = list.comments(after)
	return list, tail
}

func (f *formatter) value(v *Value) {
	if v.Object == nil && v.Array == nil {
		f.b.WriteString(v.Raw())
		return
	}
	if f.inline(v) {
		writeInline(&f.b, v, " ")
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
			f.b.WriteString(it.member.RawName())
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
		f.b.WriteString(c.text)
	}
	f.depth--
	f.newline()
	f.b.WriteByte(shut)
}

// maxInline is the maximum length of a list on one line, in bytes.
const maxInline = 80

// inline reports whether a value goes on one line. The depth of a value determines
// its kind: the policy (0), a section (1), its entry (2), a definition (3), or a
// setting.
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
	writeInline(&b, v, " ")
	return b.Len() <= maxInline
}

// hasComments reports whether a value contains comments.
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

// writeInline writes a value on one line, with a space after commas and colons.
func writeInline(b *strings.Builder, v *Value, space string) {
	switch {
	case v.Object != nil:
		b.WriteByte('{')
		for i, m := range v.Object.Members {
			if i > 0 {
				b.WriteByte(',')
				b.WriteString(space)
			}
			b.WriteString(m.RawName())
			b.WriteByte(':')
			b.WriteString(space)
			writeInline(b, &m.Value, space)
		}
		b.WriteByte('}')
	case v.Array != nil:
		b.WriteByte('[')
		for i, e := range v.Array.Elems {
			if i > 0 {
				b.WriteByte(',')
				b.WriteString(space)
			}
			writeInline(b, &e.Value, space)
		}
		b.WriteByte(']')
	default:
		b.WriteString(v.Raw())
	}
}

// Pack prints a policy without comments, white space and line breaks. Keys, strings
// and numbers are unchanged, so lws reads the result as it reads the policy.
//
// Pack fails if the document has syntax errors.
func Pack(d *Document) (string, error) {
	if HasErrors(d.Syntax) {
		return "", errors.New("a policy with syntax errors cannot be packed")
	}
	var b strings.Builder
	writeInline(&b, &d.Root, "")
	return b.String(), nil
}
