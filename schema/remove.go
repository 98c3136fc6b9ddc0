package schema

import "strings"

// RemoveMember returns the edits that remove members[i] and its comma from their
// object.
func RemoveMember(members []*Member, i int) []Edit {
	m := members[i]
	var before *Value
	comma := ""
	if i > 0 {
		before, comma = &members[i-1].Value, members[i-1].Comma
	}
	return removal(m.Span(), &m.Value, m.Comma, before, comma)
}

// RemoveElement returns the edits that remove elems[i] and its comma from their
// array.
func RemoveElement(elems []*Element, i int) []Edit {
	e := elems[i]
	var before *Value
	comma := ""
	if i > 0 {
		before, comma = &elems[i-1].Value, elems[i-1].Comma
	}
	return removal(e.Value.Span, &e.Value, e.Comma, before, comma)
}

// removal returns the edits that remove the list entry at a span that ends with
// value. The entry before it, if any, ends with the value before and the comma
// commaBefore.
func removal(at Span, value *Value, comma string, before *Value, commaBefore string) []Edit {
	text := at.Source.Text
	if comma != "" {
		at.End = value.Span.End + len(value.After) + 1
		for at.End < len(text) && (text[at.End] == ' ' || text[at.End] == '\t') {
			at.End++
		}
		line := at.Start
		for line > 0 && (text[line-1] == ' ' || text[line-1] == '\t') {
			line--
		}
		if line > 0 && text[line-1] == '\n' && at.End < len(text) && text[at.End] == '\n' {
			at.Start, at.End = line, at.End+1 // it is alone on its line
		}
		return []Edit{{Span: at}}
	}
	if before == nil {
		return []Edit{{Span: at}}
	}
	gap := Span{Source: at.Source, Start: before.Span.End + len(before.After)}
	gap.End = gap.Start + len(commaBefore)
	if strings.IndexByte(text[gap.End:at.Start], '#') >= 0 {
		return []Edit{{Span: gap}, {Span: at}}
	}
	gap.End = at.End
	return []Edit{{Span: gap}}
}
