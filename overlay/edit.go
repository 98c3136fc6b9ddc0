package overlay

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// space returns the space before a new entry of a list, given the text before an
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

// follow makes room for a new entry after the last one of a list, which has this
// value and comma. It returns the text before and after the new entry.
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

// add appends a member to an object.
func add(o *schema.Object, m *schema.Member) {
	n := &schema.Member{Name: m.Name, Key: m.Key, Colon: m.Colon, Value: m.Value.Clone()}
	n.Name.Before, n.Value.After = "", ""
	if len(o.Members) > 0 {
		prev := o.Members[len(o.Members)-1]
		n.Name.Before, n.Value.After = follow(&prev.Value, &prev.Comma, space(prev.Name.Before))
		n.Name.After, n.Value.Before = prev.Name.After, prev.Value.Before
	}
	o.Members = append(o.Members, n)
}

// appendElem appends a value to an array.
func appendElem(a *schema.Array, v schema.Value) {
	if len(a.Elems) > 0 {
		prev := a.Elems[len(a.Elems)-1]
		v.Before, v.After = follow(&prev.Value, &prev.Comma, space(prev.Value.Before))
	}
	a.Elems = append(a.Elems, &schema.Element{Value: v})
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
