package policy

import (
	"fmt"
	"strings"
)

// A Value is the value of a metadata item of a stream.
type Value struct {
	Text string
	Set  bool // by the program
}

// A Template is a text of the policy in which ${name} stands for the value of a
// metadata item. A '$' without a following '{' stands for itself. A Template may be
// used by any number of goroutines.
type Template struct {
	text   string
	parts  []templatePart // nil if the text holds no ${name}
	length int            // bytes of the literal parts
}

// A templatePart is literal text, or the value of one item.
type templatePart struct {
	text string
	item int // index into the streamtype's metadata; -1 for literal text
}

// ParseTemplate parses a text whose names are those of items. The error wraps
// ErrUnknownMetadata for another name, or ErrTemplate for "${" without "}".
func ParseTemplate(text string, items []Metadata) (*Template, error) {
	t := &Template{text: text}
	for rest := text; ; {
		literal, after, found := strings.Cut(rest, "${")
		if !found {
			if t.parts != nil {
				t.addLiteral(literal)
			}
			return t, nil
		}
		name, after, found := strings.Cut(after, "}")
		if !found {
			return nil, fmt.Errorf("%w: %q: \"${\" without \"}\"", ErrTemplate, text)
		}
		item := ItemIndex(items, name)
		if item < 0 {
			return nil, fmt.Errorf("%w: %q: the streamtype declares no metadata %q", ErrUnknownMetadata, text, name)
		}
		t.addLiteral(literal)
		t.parts = append(t.parts, templatePart{"", item})
		rest = after
	}
}

func (t *Template) addLiteral(text string) {
	if text != "" {
		t.parts = append(t.parts, templatePart{text, -1})
		t.length += len(text)
	}
}

// ItemIndex returns the index of the item with that name, or -1.
func ItemIndex(items []Metadata, name string) int {
	for i := range items {
		if items[i].Name == name {
			return i
		}
	}
	return -1
}

// String returns the text as it was parsed.
func (t *Template) String() string { return t.text }

// Static reports whether the text holds no ${name}.
func (t *Template) Static() bool { return t.parts == nil }

// Mark adds u to the uses of each item that the text names. uses has an element for
// each item.
func (t *Template) Mark(uses []Use, u Use) {
	for _, p := range t.parts {
		if p.item >= 0 {
			uses[p.item] |= u
		}
	}
}

// Expand returns the text with values inserted, which are in the order of the items. A
// missing value is empty.
func (t *Template) Expand(values []Value) string {
	if t.Static() {
		return t.text
	}
	n := t.length
	for _, p := range t.parts {
		if p.item >= 0 && p.item < len(values) {
			n += len(values[p.item].Text)
		}
	}
	var b strings.Builder
	b.Grow(n)
	for _, p := range t.parts {
		if p.item < 0 {
			b.WriteString(p.text)
		} else if p.item < len(values) {
			b.WriteString(values[p.item].Text)
		}
	}
	return b.String()
}
