package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// A Reader reads the values of a document, and collects mistakes.
type Reader struct {
	Rule  string // of the mistakes
	Found []schema.Diagnostic
}

// Errorf adds a mistake.
func (r *Reader) Errorf(at schema.Span, format string, args ...any) {
	r.Found = append(r.Found, schema.Diagnostic{Rule: r.Rule, Severity: schema.Error, Span: at, Message: fmt.Sprintf(format, args...)})
}

// Is reports whether a value is of a kind, and adds a mistake if it is not.
func (r *Reader) Is(v *schema.Value, k schema.Kind) bool {
	if v.Kind != k {
		r.Errorf(v.Span, "want %s, got %s", k, v.Kind)
	}
	return v.Kind == k
}

// Object reads the members of an object.
func (r *Reader) Object(v *schema.Value, keys map[string]func(*schema.Value)) {
	if !r.Is(v, schema.ObjectKind) {
		return
	}
	seen := map[string]bool{}
	for _, m := range v.Members() {
		read, ok := keys[m.Key]
		switch {
		case !ok:
			var names []string
			for name := range keys {
				names = append(names, name)
			}
			slices.Sort(names)
			r.Errorf(m.Name.Span, "unknown setting %s: want one of %s", schema.QuoteName(m.Key), strings.Join(names, ", "))
		case seen[m.Key]:
			r.Errorf(m.Name.Span, "duplicate setting %s", schema.QuoteName(m.Key))
		default:
			seen[m.Key] = true
			read(&m.Value)
		}
	}
}

// Text returns a string. For another value it adds a mistake and returns "".
func (r *Reader) Text(v *schema.Value) string {
	if !r.Is(v, schema.String) {
		return ""
	}
	return v.Text()
}

// OneOf returns a string that must be one of the words, or "".
func (r *Reader) OneOf(v *schema.Value, words ...string) string {
	text := r.Text(v)
	if v.Kind == schema.String && !slices.Contains(words, text) {
		r.Errorf(v.Span, "%s is not one of %s", schema.QuoteName(text), strings.Join(words, ", "))
		return ""
	}
	return text
}

// List reads the elements of an array.
func (r *Reader) List(v *schema.Value, read func(*schema.Value)) {
	if r.Is(v, schema.ArrayKind) {
		for _, e := range v.Elems() {
			read(&e.Value)
		}
	}
}
