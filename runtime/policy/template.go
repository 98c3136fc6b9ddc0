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
// metadata item. A '$' without a following '{' stands for itself. A Template is
// safe for concurrent use.
type Template struct {
	text   string
	parts  []templatePart // nil if the text holds no ${name}
	length int            // bytes of the literal parts
}

// A templatePart is literal text, or the value of one item.
type templatePart struct {
	text   string
	item   int  // index into the streamtype's metadata; -1 for literal text
	encode bool // percent-encode the value
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
		t.parts = append(t.parts, templatePart{item: item})
		rest = after
	}
}

// ParseURL parses the path and query of a URL. uses has an element for each of
// items; ParseURL adds to it how the text uses each. Expand percent-encodes the
// values (RFC 3986 section 2.1), so that none adds a parameter, a query or a
// fragment, unless the text is Whole or the item is Raw.
func ParseURL(text string, items []Metadata, uses []Use) (*Template, error) {
	t, err := ParseTemplate(text, items)
	if err != nil {
		return nil, err
	}
	for i := range t.parts {
		t.parts[i].markURL(items, uses, !t.Whole())
	}
	return t, nil
}

// markURL marks the part as belonging to a path or query. inside is false for the
// whole URL.
func (p *templatePart) markURL(items []Metadata, uses []Use, inside bool) {
	if p.item < 0 {
		return
	}
	uses[p.item] |= UseURL
	if inside && !items[p.item].Raw {
		uses[p.item] |= UsePart
		p.encode = true
	}
}

// ParseTopic parses an MQTT topic or filter. uses has an element for each of items;
// ParseTopic adds to it how the text uses each.
func ParseTopic(text string, items []Metadata, uses []Use) (*Template, error) {
	t, err := ParseTemplate(text, items)
	if err != nil {
		return nil, err
	}
	for _, p := range t.parts {
		if p.item >= 0 && !t.Whole() && !items[p.item].Raw {
			uses[p.item] |= UseLevel
		}
	}
	return t, nil
}

func (t *Template) addLiteral(text string) {
	if text != "" {
		t.parts = append(t.parts, templatePart{text: text, item: -1})
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

// String returns the text that was parsed.
func (t *Template) String() string { return t.text }

// Static reports whether the text holds no ${name}.
func (t *Template) Static() bool { return t.parts == nil }

// Whole reports whether the text consists of one ${name}. The value is then the
// whole URL or topic, not part of it.
func (t *Template) Whole() bool { return len(t.parts) == 1 && t.parts[0].item >= 0 }

// Mark adds u to the uses of each item that the text names. uses has an element for
// each item.
func (t *Template) Mark(uses []Use, u Use) {
	for _, p := range t.parts {
		if p.item >= 0 {
			uses[p.item] |= u
		}
	}
}

// Expand returns the text with values inserted. The values are in the order of the
// items; a missing one is empty.
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
		} else if p.item < len(values) && p.encode {
			encodePart(&b, values[p.item].Text)
		} else if p.item < len(values) {
			b.WriteString(values[p.item].Text)
		}
	}
	return b.String()
}

// encodePart writes a value, percent-encoding every byte that could have a meaning
// in a URL, except slashes.
func encodePart(b *strings.Builder, value string) {
	for i := range len(value) {
		if c := value[i]; isAlphanumeric(c) || strings.IndexByte("-._~/:@,!*()'", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}
