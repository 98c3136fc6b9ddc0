package schema

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// A Document is the syntax tree of a policy. It holds every byte of its source and
// prints as that source, including comments, white space, duplicate keys and syntax
// errors.
type Document struct {
	Source *Source
	Root   Value
	Tail   string // the text after the policy: only white space and comments are valid

	// Syntax holds the syntax errors and warnings, sorted by position.
	Syntax []Diagnostic

	damaged   bool       // see Damaged
	corrected *Document  // the document with the fixable mistakes corrected
	corrector *corrector // maps the spans of corrected to Source
}

// Damaged reports whether uncorrected syntax errors leave the structure of the
// document in doubt, such as a missing bracket that may belong in several places.
func (d *Document) Damaged() bool { return d.Corrected().damaged }

// cSource matches the names of C and C++ files.
var cSource = regexp.MustCompile(`(?i)\.(c|h|cc|cpp|cxx|hh|hpp|ino)$`)

// NotPolicy returns a diagnostic if the document is not a Secure Streams policy:
// not an object, or an object without any key of a policy. It returns nil for a
// policy and for an empty object or text.
func (d *Document) NotPolicy() *Diagnostic {
	root := &d.Corrected().Root
	g := &Diagnostic{Rule: RuleNotPolicy, Severity: Error, Span: d.Origin(root.Span).First()}
	members := root.Members()
	switch {
	case root.Kind == Missing, root.Kind == ObjectKind && len(members) == 0:
		return nil
	case root.Kind != ObjectKind:
		g.Message = "this is not a Secure Streams policy: it starts with " + root.Kind.String() + ", and a policy is a JSON object"
		if root.Kind == Invalid && cSource.MatchString(d.Source.Name) {
			g.Message += "; only lint and lsp read policies in C"
		}
		return g
	}
	var keys []string
	for _, m := range members {
		if key := fold(m.Key); key != "$schema" && slices.ContainsFunc(Keys(Top), func(k *Key) bool { return fold(k.Name) == key }) ||
			key == "$schema" && strings.HasSuffix(m.Value.Text(), "/policy.schema.json") {
			return nil
		}
		if len(keys) < 3 {
			keys = append(keys, QuoteName(m.Key))
		}
	}
	g.Message = "this is not a Secure Streams policy: it has " + strings.Join(keys, ", ") + ", and no key of a policy, such as \"s\""
	return g
}

// A Kind is the type of a value.
type Kind uint8

// The kinds of values.
const (
	Missing Kind = iota // a value is missing
	Invalid             // text that is not a JSON value
	Null
	Bool
	Number
	String
	ObjectKind
	ArrayKind
)

var kindNames = [...]string{"nothing", "text that is not JSON", "null", "a boolean", "a number", "a string", "an object", "an array"}

// String returns the kind as a noun with its article, for messages.
func (k Kind) String() string { return kindNames[k] }

// A Value is a JSON value with the white space and comments around it and, after a
// syntax error, the skipped text.
type Value struct {
	Before, After string
	Span          Span    // of the value alone
	Object        *Object // if Kind is ObjectKind
	Array         *Array  // if Kind is ArrayKind
	Kind          Kind

	// Literal is the text of a scalar that a program has set. It is nil in a parsed
	// document, where Span holds the text.
	Literal *string
}

// An Object is a JSON object. Its members are in the order of the text; keys may
// repeat.
type Object struct {
	Members []*Member
	Tail    string // between the last member and the closing bracket
	Close   string // the closing bracket, or ""
}

// A Member is a key and its value.
type Member struct {
	Name     Name
	Key      string // the key, unquoted
	Value    Value
	Comma    string // "," or ""
	Colon    bool   // ":" follows the key; other text in its place is in Name.After
	NameKind Kind   // of the key: String, Invalid or Missing
}

// A Name is the position of the key of a member, with the space around it.
type Name struct {
	Before, After string
	Span          Span // of the key alone; empty if a program has set the key
}

// RawName returns the text of the key.
func (m *Member) RawName() string {
	if m.NameKind == String && m.Name.Span.Start == m.Name.Span.End {
		return Quote(m.Key)
	}
	return m.Name.Span.Text()
}

// An Array is a JSON array.
type Array struct {
	Elems []*Element
	Tail  string
	Close string
}

// An Element is a value in an array.
type Element struct {
	Value Value
	Comma string
}

// Raw returns the text of a scalar, or "" for an object or array.
func (v *Value) Raw() string {
	switch {
	case v.Kind == Missing, v.Kind == ObjectKind, v.Kind == ArrayKind:
		return ""
	case v.Literal != nil:
		return *v.Literal
	}
	return v.Span.Text()
}

// Text returns the value of a string, or the text of any other scalar.
func (v *Value) Text() string {
	if v.Kind == String {
		return Unquote(v.Raw())
	}
	return v.Raw()
}

// LikeFalse reports whether the value is not a boolean but can only mean false. lws
// reads it as false.
func (v *Value) LikeFalse() bool {
	switch v.Kind {
	case String, Number, Null:
		return slices.Contains([]string{"false", "0", "", "null"}, v.Text())
	}
	return false
}

// Members returns the members of an object, or nil for any other value.
func (v *Value) Members() []*Member {
	if v.Object == nil {
		return nil
	}
	return v.Object.Members
}

// Elems returns the elements of an array, or nil for any other value.
func (v *Value) Elems() []*Element {
	if v.Array == nil {
		return nil
	}
	return v.Array.Elems
}

// Span returns the range from a member's key to the end of its value.
func (m *Member) Span() Span {
	s := m.Name.Span
	if m.Value.Span.Source == s.Source {
		s.End = max(s.End, m.Value.Span.End)
	}
	return s
}

// Unquote decodes a JSON string. For an invalid one, which the parser reports, it
// returns the text between the quotation marks.
func Unquote(raw string) string {
	inner := strings.TrimPrefix(raw, `"`)
	if strings.IndexByte(inner, '\\') < 0 {
		return strings.TrimSuffix(inner, `"`)
	}
	var s string
	if json.Unmarshal([]byte(raw), &s) != nil {
		return strings.TrimSuffix(inner, `"`)
	}
	return s
}

// LoneSurrogates returns the escapes in the strings of a value, keys included, that
// are one half of a surrogate pair without the other. Such a string has no UTF-8
// encoding.
func (v *Value) LoneSurrogates() []Span {
	switch v.Kind {
	case ObjectKind:
		var found []Span
		for _, m := range v.Object.Members {
			found = append(append(found, loneSurrogates(m.Name.Span, m.RawName())...), m.Value.LoneSurrogates()...)
		}
		return found
	case ArrayKind:
		var found []Span
		for _, e := range v.Array.Elems {
			found = append(found, e.Value.LoneSurrogates()...)
		}
		return found
	case String:
		return loneSurrogates(v.Span, v.Raw())
	}
	return nil
}

// loneSurrogates returns those in the text of the string at a span.
func loneSurrogates(at Span, text string) (found []Span) {
	if !strings.Contains(text, `\u`) {
		return nil
	}
	text = strings.ReplaceAll(text, `\\`, "..") // an escaped backslash starts no escape
	for _, s := range surrogates.FindAllStringIndex(text, -1) {
		if s[1]-s[0] == len(`\ud800`) {
			found = append(found, Span{at.Source, at.Start + s[0], at.Start + s[1]})
		}
	}
	return found
}

// surrogates matches a surrogate pair, or half of one.
var surrogates = regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2}`)

// Quote returns s as a JSON string.
func Quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // encoding a string never fails
	return strings.TrimSuffix(b.String(), "\n")
}

// String prints the document.
func (d *Document) String() string {
	var b strings.Builder
	b.Grow(len(d.Source.Text))
	d.Root.print(&b)
	b.WriteString(d.Tail)
	return b.String()
}

func (v *Value) print(b *strings.Builder) {
	b.WriteString(v.Before)
	switch {
	case v.Object != nil:
		b.WriteByte('{')
		for _, m := range v.Object.Members {
			b.WriteString(m.Name.Before)
			b.WriteString(m.RawName())
			b.WriteString(m.Name.After)
			if m.Colon {
				b.WriteByte(':')
			}
			m.Value.print(b)
			b.WriteString(m.Comma)
		}
		b.WriteString(v.Object.Tail)
		b.WriteString(v.Object.Close)
	case v.Array != nil:
		b.WriteByte('[')
		for _, e := range v.Array.Elems {
			e.Value.print(b)
			b.WriteString(e.Comma)
		}
		b.WriteString(v.Array.Tail)
		b.WriteString(v.Array.Close)
	default:
		b.WriteString(v.Raw())
	}
	b.WriteString(v.After)
}

// Clone returns a deep copy of the document.
func (d *Document) Clone() *Document {
	c := *d
	c.Root = d.Root.Clone()
	return &c
}

// Clone returns a deep copy of the value.
func (v *Value) Clone() Value {
	c := *v
	if v.Object != nil {
		o := *v.Object
		o.Members = make([]*Member, len(v.Object.Members))
		for i, m := range v.Object.Members {
			n := *m
			n.Value = m.Value.Clone()
			o.Members[i] = &n
		}
		c.Object = &o
	}
	if v.Array != nil {
		a := *v.Array
		a.Elems = make([]*Element, len(v.Array.Elems))
		for i, e := range v.Array.Elems {
			a.Elems[i] = &Element{e.Value.Clone(), e.Comma}
		}
		c.Array = &a
	}
	return c
}
