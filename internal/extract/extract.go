// Package extract finds policies embedded in other texts: C string literals, and templates
// that a build fills in. It maps positions in the policy to positions in the file.
package extract

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// A Mode is the kind of placeholders of a text.
type Mode string

// The modes.
const (
	Auto   Mode = "auto"   // all kinds in C, in .in files, and if values are given; otherwise none
	None   Mode = "none"   // none
	CMake  Mode = "cmake"  // @NAME@, and ${NAME} outside of strings, where lws has no metadata
	Printf Mode = "printf" // verbs such as %d
)

// Options configure the extraction.
type Options struct {
	Template Mode              // empty means Auto
	Define   map[string]string // values of placeholders and of macros of C
}

// A Policy is a policy in a file.
type Policy struct {
	// Document is the policy, with placeholders in the form @NAME@. Its source has the
	// name of the file.
	Document *schema.Document

	// Partial is set if a placeholder stands for settings or definitions, so that only
	// the shape of the policy is certain.
	Partial bool

	text *mapping // nil if the policy is the whole file
}

// Plain reports whether a file is itself a policy.
func (o Options) Plain(file string) bool {
	return !isC(file) && o.mode(file) == None && len(o.Define) == 0
}

// isC reports whether the name of a file is that of a C or C++ source or header.
func isC(file string) bool {
	switch strings.ToLower(filepath.Ext(file)) {
	case ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".ino":
		return true
	}
	return false
}

// isTemplate reports whether the name of a file is that of a template of CMake or autoconf.
func isTemplate(file string) bool { return strings.EqualFold(filepath.Ext(file), ".in") }

// Holds reports whether files of this name may embed policies.
func Holds(file string) bool {
	return isC(file) || isTemplate(file) && strings.EqualFold(filepath.Ext(strings.TrimSuffix(file, filepath.Ext(file))), ".json")
}

// mode returns the mode of a file.
func (o Options) mode(file string) Mode {
	switch {
	case o.Template != "" && o.Template != Auto:
		return o.Template
	case isC(file) || isTemplate(file) || len(o.Define) > 0:
		return Auto
	}
	return None
}

var (
	placeholders = regexp.MustCompile(`@([A-Za-z_][A-Za-z0-9_]*)@|\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	identifiers  = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
)

// Names adds the names that Options.Define may define for a file to names: placeholders,
// and in C all words.
func Names(file string, text []byte, names map[string]bool) {
	for _, m := range placeholders.FindAllSubmatch(text, -1) {
		names[string(m[1])+string(m[2])] = true
	}
	if isC(file) {
		for _, name := range identifiers.FindAll(text, -1) {
			names[string(name)] = true
		}
	}
}

// Policies returns the policies of a file: those in string literals for C, otherwise the
// file itself.
func Policies(file string, text []byte, o Options) []*Policy {
	if o.Plain(file) {
		return []*Policy{{Document: schema.Parse(file, text)}}
	}
	src := &schema.Source{Name: file, Text: string(text)}
	var all []*Policy
	for _, m := range texts(src, o) {
		filled := m.fill(o.mode(file), o.Define)
		if isC(file) && !sections.MatchString(filled.text.String()) {
			continue
		}
		p := &Policy{Document: schema.ParseTemplate(file, []byte(filled.text.String())), text: filled}
		p.Partial = partial(p.Document.Corrected())
		if !isC(file) || p.Document.NotPolicy() == nil {
			all = append(all, p)
		}
	}
	return all
}

// Source returns the file. Its comments are those of C.
func (p *Policy) Source() *schema.Source {
	if p.text == nil {
		return p.Document.Source
	}
	return p.text.src
}

// partial reports whether a placeholder of a policy stands for definitions, settings or
// list items.
func partial(d *schema.Document) bool {
	var in func(v *schema.Value) bool
	in = func(v *schema.Value) bool {
		return slices.ContainsFunc(v.Members(), func(m *schema.Member) bool { return in(&m.Value) }) ||
			slices.ContainsFunc(v.Elems(), func(e *schema.Element) bool { return e.Value.Kind == schema.Invalid || in(&e.Value) })
	}
	section := func(m *schema.Member) bool {
		return m.Value.Kind == schema.Invalid && schema.Section(m.Key).Noun() != ""
	}
	return len(d.Source.Skipped) > 0 || in(&d.Root) || slices.ContainsFunc(d.Root.Members(), section)
}

// texts returns the texts of a file that may be policies.
func texts(src *schema.Source, o Options) []*mapping {
	if isC(src.Name) {
		return literals(src, o.Define)
	}
	m := &mapping{src: src}
	m.copy(0, len(src.Text), 0)
	return []*mapping{m}
}

// sections distinguishes a policy from other JSON.
var sections = regexp.MustCompile(`^\s*\{[\s\S]*"(s|retry|certs|trust_stores)"\s*:\s*\[`)

// Place maps findings in the policy to the file. It drops findings about
// placeholders, and fixes whose edits have no exact position in the file.
func (p *Policy) Place(found []schema.Diagnostic) []schema.Diagnostic {
	if p.text == nil {
		return found
	}
	unnamed := p.unnamed()
	var placed []schema.Diagnostic
	for _, g := range found {
		if g.Span.Source == p.Document.Source {
			if p.opaque(g.Span) || unnamed && slices.Contains(aboutNames, g.Rule) {
				continue
			}
		}
		g.Span = p.place(g.Span)
		g.Related = slices.Clone(g.Related)
		for i := range g.Related {
			g.Related[i].Span = p.place(g.Related[i].Span)
		}
		var fixes []schema.Fix
		for _, f := range g.Fixes {
			if edits, ok := p.edits(f.Edits); ok {
				f.Edits = edits
				fixes = append(fixes, f)
			}
		}
		g.Fixes = fixes
		placed = append(placed, g)
	}
	return placed
}

// aboutNames are the rules that compare names.
var aboutNames = []string{"unused-definition", "undefined-reference", "forward-reference", "unused-metadata", "undeclared-metadata"}

// unnamed reports whether a name in the policy contains a placeholder.
func (p *Policy) unnamed() bool {
	view := schema.NewPolicy(p.Document.Corrected())
	return slices.ContainsFunc(view.Definitions, func(d *schema.Definition) bool { return placeholder.MatchString(d.Name) }) ||
		slices.ContainsFunc(view.References, func(r *schema.Reference) bool { return placeholder.MatchString(r.Name) })
}

// opaque reports whether a span of the policy is a scalar with a placeholder.
func (p *Policy) opaque(s schema.Span) bool {
	text := s.Text()
	return placeholder.MatchString(text) && !strings.ContainsAny(text, "{}[]")
}

// place maps a span of the policy to the file. A span of another source is not
// changed.
func (p *Policy) place(s schema.Span) schema.Span {
	if s.Source != p.Document.Source {
		return s
	}
	return p.text.span(s.Start, s.End)
}

// edits maps edits of the policy to the file.
func (p *Policy) edits(list []schema.Edit) ([]schema.Edit, bool) {
	var placed []schema.Edit
	for _, e := range list {
		if e.Span.Source != p.Document.Source {
			return nil, false
		}
		at, ok := p.text.exact(e.Span.Start, e.Span.End)
		if !ok || strings.ContainsAny(e.NewText, "\n\r@") {
			return nil, false
		}
		if p.text.escaped {
			e.NewText = escapeC.Replace(e.NewText)
		}
		placed = append(placed, schema.Edit{Span: at, NewText: e.NewText})
	}
	return placed, true
}

var escapeC = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "?", `\?`)
