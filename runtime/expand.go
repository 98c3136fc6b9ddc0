package runtime

import (
	"fmt"
	"strings"
)

// A Template is a text of the policy in which ${name} stands for the value of
// a metadata item. A '$' that is not followed by '{' stands for itself.
type Template struct {
	text  string
	parts []templatePart // nil if the text holds no ${name}
	known int            // bytes of the literal parts
}

// A templatePart is literal text, or the value of one item.
type templatePart struct {
	text string
	item int // index into the streamtype's metadata; -1 for literal text
}

// ParseTemplate reads a text whose names are those of a streamtype's metadata.
// A name that is not among them, and "${" without "}", are errors that wrap
// ErrUnknownMetadata and ErrTemplate.
func ParseTemplate(text string, items []Metadata) (*Template, error) {
	t := &Template{text: text}
	for rest := text; ; {
		lit, after, found := strings.Cut(rest, "${")
		if !found {
			if t.parts != nil && lit != "" {
				t.parts = append(t.parts, templatePart{lit, -1})
				t.known += len(lit)
			}
			return t, nil
		}
		name, after, found := strings.Cut(after, "}")
		if !found {
			return nil, fmt.Errorf("%w: %q: \"${\" without \"}\"", ErrTemplate, text)
		}
		item := itemIndex(items, name)
		if item < 0 {
			return nil, fmt.Errorf("%w: %q: the streamtype declares no metadata %q", ErrUnknownMetadata, text, name)
		}
		if lit != "" {
			t.parts = append(t.parts, templatePart{lit, -1})
			t.known += len(lit)
		}
		t.parts = append(t.parts, templatePart{"", item})
		rest = after
	}
}

func itemIndex(items []Metadata, name string) int {
	for i := range items {
		if items[i].Name == name {
			return i
		}
	}
	return -1
}

// String returns the text as it was parsed.
func (t *Template) String() string { return t.text }

// static reports whether the text is the same whatever the metadata.
func (t *Template) static() bool { return t.parts == nil }

// uses calls f for each item that the text names, in order.
func (t *Template) uses(f func(item int)) {
	for _, p := range t.parts {
		if p.item >= 0 {
			f(p.item)
		}
	}
}

// literals calls f for each piece of text that is no name, in order.
func (t *Template) literals(f func(text string)) {
	for _, p := range t.parts {
		if p.item < 0 {
			f(p.text)
		}
	}
}

// length returns the length of the expanded text in bytes.
func (t *Template) length(values []metadataValue) int {
	if t.static() {
		return len(t.text)
	}
	n := t.known
	for _, p := range t.parts {
		if p.item >= 0 && p.item < len(values) {
			n += len(values[p.item].text)
		}
	}
	return n
}

// expand returns the text with values put in, nothing for those not set.
func (t *Template) expand(values []metadataValue) string {
	if t.static() {
		return t.text
	}
	var b strings.Builder
	b.Grow(t.length(values))
	for _, p := range t.parts {
		if p.item < 0 {
			b.WriteString(p.text)
		} else if p.item < len(values) {
			b.WriteString(values[p.item].text)
		}
	}
	return b.String()
}
