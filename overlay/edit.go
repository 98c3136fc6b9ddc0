package overlay

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// space returns the white space for a new entry of a list, given the text before an
// existing entry: its line break and indentation.
func space(before string) string {
	if i := strings.LastIndexByte(before, '\n'); i >= 0 {
		return before[i:]
	}
	if strings.ContainsRune(before, '#') {
		return "\n"
	}
	return before
}

// closing splits the text after the last entry of a list into the part that belongs
// to the entry, such as a comment, and the part that belongs to the closing bracket.
func closing(after string) (entry, bracket string) {
	i := len(strings.TrimRight(after, " \t\r\n"))
	if j := strings.IndexByte(after[i:], '\n'); i > 0 && j >= 0 {
		i += j // a comment ends with its line
	}
	return after[:i], after[i:]
}

// follow makes room for a new entry after the last one of a list, whose value and
// comma are given. It returns the text before and after the new entry.
func follow(v *schema.Value, comma *string, indent string) (before, after string) {
	if *comma != "" {
		return indent, ""
	}
	*comma = ","
	entry, bracket := closing(v.After)
	v.After = ""
	if entry != "" && !strings.HasPrefix(indent, "\n") {
		indent = "\n" + indent // entry ends in a comment
	}
	return entry + indent, bracket
}

// setMember returns a member for a setting at a span of a fragment that does not
// spell out its key.
func setMember(at schema.Span, key string, v schema.Value) *schema.Member {
	at.End = at.Start
	return &schema.Member{Name: schema.Name{Span: at}, NameKind: schema.String, Key: key, Colon: true, Value: v}
}

// scalar returns a scalar for a setting at a span of a fragment that does not spell
// it out.
func scalar(at schema.Span, kind schema.Kind, raw string) schema.Value {
	return schema.Value{Span: at, Kind: kind, Literal: &raw}
}

// precede splits the text before an entry into the text before a new entry in its
// place and the text before the entry itself, which keeps the comments above it.
func precede(before string) (entry, next string) {
	first, own := line(before)
	return first + space(own), own
}

// add inserts m into an object before the member at index i, and returns it. The
// layout follows the other members.
func add(o *schema.Object, i int, m *schema.Member) *schema.Member {
	n := &schema.Member{Name: m.Name, NameKind: m.NameKind, Key: m.Key, Colon: m.Colon, Value: m.Value.Clone()}
	n.Name.Before, n.Value.After = "", ""
	switch {
	case i < len(o.Members):
		next := o.Members[i]
		n.Name.Before, next.Name.Before = precede(next.Name.Before)
		n.Name.After, n.Value.Before, n.Comma = next.Name.After, next.Value.Before, ","
	case len(o.Members) > 0:
		prev := o.Members[len(o.Members)-1]
		n.Name.Before, n.Value.After = follow(&prev.Value, &prev.Comma, space(prev.Name.Before))
		n.Name.After, n.Value.Before = prev.Name.After, prev.Value.Before
	}
	o.Members = slices.Insert(o.Members, i, n)
	return n
}

// insert inserts v into an array before the element at index i, and returns it. The
// layout follows the other elements.
func insert(a *schema.Array, i int, v schema.Value) *schema.Value {
	n := &schema.Element{Value: v.Clone()}
	n.Value.Before, n.Value.After = "", ""
	switch {
	case i < len(a.Elems):
		next := a.Elems[i]
		n.Value.Before, next.Value.Before = precede(next.Value.Before)
		n.Comma = ","
	case len(a.Elems) > 0:
		prev := a.Elems[len(a.Elems)-1]
		n.Value.Before, n.Value.After = follow(&prev.Value, &prev.Comma, space(prev.Value.Before))
	}
	a.Elems = slices.Insert(a.Elems, i, n)
	return &n.Value
}

// object returns an object with one member, without the space around it.
func object(m *schema.Member) schema.Value {
	n := &schema.Member{Name: m.Name, NameKind: m.NameKind, Key: m.Key, Colon: m.Colon, Value: m.Value.Clone()}
	n.Name.Before, n.Value.After = "", ""
	return schema.Value{Span: m.Span(), Kind: schema.ObjectKind, Object: &schema.Object{Members: []*schema.Member{n}, Close: "}"}}
}

// withoutNulls returns an object with a new member of a fragment, without its
// settings and entries that are null.
func withoutNulls(m *schema.Member) schema.Value {
	v := object(m)
	stream := v.Object.Members[0].Value.Object
	for _, s := range slices.Clone(stream.Members) {
		if s.Value.Kind == schema.Null {
			remove(stream, s.Key)
		}
		if s.Value.Array == nil {
			continue
		}
		for _, e := range s.Value.Array.Elems {
			for _, item := range slices.Clone(e.Value.Members()) {
				if item.Value.Kind == schema.Null {
					remove(e.Value.Object, item.Key)
				}
			}
		}
		prune(s.Value.Array)
	}
	return v
}

// last returns the last member of an object with this key, which is the one that
// counts, or nil.
func last(o *schema.Object, key string) *schema.Member {
	if o == nil {
		return nil
	}
	for i := len(o.Members) - 1; i >= 0; i-- {
		if o.Members[i].Key == key {
			return o.Members[i]
		}
	}
	return nil
}

// put replaces the value v by another, keeps the space around it, and returns the
// old value.
func put(v, by *schema.Value) schema.Value {
	old := *v
	*v = by.Clone()
	v.Before, v.After = old.Before, old.After
	return old
}

// same reports whether two values are equal, ignoring white space and comments.
func same(a, b *schema.Value) bool {
	if a.Kind != b.Kind {
		return false
	}
	switch a.Kind {
	case schema.ObjectKind:
		return slices.EqualFunc(a.Object.Members, b.Object.Members, func(x, y *schema.Member) bool {
			return x.Key == y.Key && same(&x.Value, &y.Value)
		})
	case schema.ArrayKind:
		return slices.EqualFunc(a.Array.Elems, b.Array.Elems, func(x, y *schema.Element) bool { return same(&x.Value, &y.Value) })
	}
	return a.Text() == b.Text()
}

// remove removes all members with this key from an object, with their comments.
func remove(o *schema.Object, key string) {
	if o == nil {
		return
	}
	rest := o.Members[:0]
	for i, m := range o.Members {
		if m.Key != key {
			rest = append(rest, m)
			continue
		}
		before, _ := line(m.Name.Before) // may be a comment of the previous member
		if i+1 < len(o.Members) {
			next := o.Members[i+1]
			_, own := line(next.Name.Before)
			next.Name.Before = before + own
			continue
		}
		_, bracket := closing(m.Value.After)
		if m.Comma != "" {
			bracket = ""
		}
		if len(rest) == 0 {
			o.Tail = before + bracket + o.Tail
			continue
		}
		last := rest[len(rest)-1]
		last.Comma = ""
		last.Value.After += before + bracket
	}
	o.Members = rest
}

// line splits the text before an entry into the part on the line of the previous
// entry and the rest.
func line(before string) (first, rest string) {
	i := strings.IndexByte(before, '\n')
	if i < 0 {
		return "", before
	}
	return strings.TrimRight(before[:i], " \t\r"), before[i:]
}

// prune removes the empty objects from an array.
func prune(a *schema.Array) {
	a.Elems = slices.DeleteFunc(a.Elems, func(e *schema.Element) bool {
		return e.Value.Object != nil && len(e.Value.Object.Members) == 0
	})
	if n := len(a.Elems); n > 0 {
		a.Elems[n-1].Comma = ""
	}
}
