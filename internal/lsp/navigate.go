package lsp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// A name identifies a definition in all documents that use it: a policy and its fragments.
type name struct {
	section schema.Section
	text    string
	of      string // the streamtype that declares the metadata
}

// nameAt returns the name at a position, and its span.
func (snap *snapshot) nameAt(p Position) (name, schema.Span, bool) {
	offset := snap.text.offset(p)
	switch at := snap.scan().at(offset); {
	case at.ref != nil:
		return name{section: at.ref.Key.Ref, text: at.ref.Name}, at.ref.Span, true
	case at.onDef:
		return name{section: at.def.Section, text: at.def.Name}, at.def.NameSpan, true
	default:
		return snap.scan().metadataAt(at, offset)
	}
}

// A use is an occurrence of a name.
type use struct {
	file    *relative
	span    schema.Span
	defines bool
}

func (u *use) location() location {
	return location{u.file.uri, u.file.text.span(u.span.Start, u.span.End)}
}

// uses returns the occurrences of a name in a document.
func (r *relative) uses(n name) (all []use) {
	if n.section == metadata {
		return r.metadataUses(n)
	}
	for _, d := range r.tree.policy.Lookup(n.section, n.text) {
		all = append(all, use{r, d.NameSpan, true})
	}
	for _, ref := range r.tree.policy.References {
		if ref.Key.Ref == n.section && ref.Name == n.text {
			all = append(all, use{r, ref.Span, false})
		}
	}
	return all
}

// A relative is a document that shares names with another one: its base, or a fragment over
// the same base.
type relative struct {
	uri  string
	text *text
	tree *tree
}

func (snap *snapshot) relative() *relative { return &relative{snap.uri, snap.text, snap.scan()} }

// maxRelatives is the maximum number of files of a folder that are searched for fragments.
const maxRelatives = 1000

// relatives returns the document, its base, and the other fragments of that base: those
// that are open, or in the folder of the document, of the base, or of a pattern in the
// configuration.
func (s *server) relatives(snap *snapshot) []*relative {
	base := snap.base()
	if base == "" {
		base = snap.file
	}
	all := []*relative{snap.relative()}
	seen := map[string]bool{snap.file: true}
	for _, other := range s.open() {
		if !seen[other.file] && (other.file == base || other.base() == base) {
			all = append(all, other.relative())
		}
		seen[other.file] = true
	}
	if !filepath.IsAbs(base) {
		return all
	}
	files := []string{base}
	for _, dir := range append(s.configFor(snap).FragmentFolders(base), filepath.Dir(base), filepath.Dir(snap.file)) {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > maxRelatives {
			continue
		}
		for _, e := range entries {
			if strings.EqualFold(filepath.Ext(e.Name()), ".json") {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	for _, file := range files {
		if seen[file] {
			continue
		}
		seen[file] = true
		text, err := s.content(file)
		if err != nil {
			continue
		}
		other := s.newSnapshot(uriOf(file), 0, newText(string(text)))
		other.stale()
		if file == base || other.base() == base {
			all = append(all, other.relative())
		}
	}
	return all
}

func (s *server) definition(_ context.Context, snap *snapshot, p positionParams) (any, error) {
	found := []location{}
	at := snap.scan().at(snap.text.offset(p.Position))
	n, _, ok := snap.nameAt(p.Position)
	if !ok {
		return found, nil
	}
	if at.ref != nil && at.ref.Target != nil {
		return append(found, location{snap.uri, snap.span(at.ref.Target.NameSpan)}), nil
	}
	for _, r := range s.relatives(snap) {
		for _, u := range r.uses(n) {
			if u.defines {
				found = append(found, u.location())
			}
		}
		if at.ref != nil && len(found) > 0 {
			break
		}
	}
	return found, nil
}

func (s *server) references(_ context.Context, snap *snapshot, p referenceParams) (any, error) {
	found := []location{}
	if n, _, ok := snap.nameAt(p.Position); ok {
		for _, r := range s.relatives(snap) {
			for _, u := range r.uses(n) {
				if !u.defines || p.Context.IncludeDeclaration {
					found = append(found, u.location())
				}
			}
		}
	}
	return found, nil
}

func (s *server) highlights(_ context.Context, snap *snapshot, p positionParams) (any, error) {
	found := []documentHighlight{}
	if n, _, ok := snap.nameAt(p.Position); ok {
		for _, u := range snap.relative().uses(n) {
			kind := 2
			if u.defines {
				kind = 3
			}
			found = append(found, documentHighlight{snap.span(u.span), kind})
		}
	}
	return found, nil
}

// inner returns a string without its quotation marks.
func inner(s schema.Span) schema.Span {
	if text := s.Text(); len(text) >= 2 && strings.HasPrefix(text, `"`) && strings.HasSuffix(text, `"`) {
		s.Start++
		s.End--
	}
	return s
}

func (s *server) prepareRename(_ context.Context, snap *snapshot, p positionParams) (any, error) {
	n, at, ok := snap.nameAt(p.Position)
	if !ok {
		return nil, nil
	}
	return prepareRenameResult{snap.span(inner(at)), n.text}, nil
}

// rename renames a definition and all references to it, including those in fragments.
func (s *server) rename(_ context.Context, snap *snapshot, p renameParams) (any, error) {
	n, _, ok := snap.nameAt(p.Position)
	switch {
	case !ok:
		return nil, errors.New("there is no name of a definition or of metadata here")
	case p.NewName == "":
		return nil, errors.New("a name must not be empty")
	case len(p.NewName) > schema.MaxString:
		return nil, fmt.Errorf("lws reads names of at most %d bytes", schema.MaxString)
	case n.section == metadata && strings.ContainsAny(p.NewName, "${}\"\\"):
		return nil, errors.New(`a name of metadata must not contain $, {, }, " or \\`)
	}
	edit := workspaceEdit{map[string][]textEdit{}}
	for _, r := range s.relatives(snap) {
		if n.section == metadata && p.NewName != n.text && r.declares(name{metadata, p.NewName, n.of}) {
			return nil, fmt.Errorf("the streamtype has metadata %s already", schema.QuoteName(p.NewName))
		}
		if p.NewName != n.text && len(r.tree.policy.Lookup(n.section, p.NewName)) > 0 {
			return nil, fmt.Errorf("there is a %s %s already", n.section.Noun(), schema.QuoteName(p.NewName))
		}
		for _, u := range r.uses(n) {
			text := p.NewName
			if strings.HasPrefix(u.span.Text(), `"`) {
				text = schema.Quote(text)
			}
			edit.Changes[r.uri] = append(edit.Changes[r.uri], textEdit{u.location().Range, text})
		}
	}
	for _, edits := range edit.Changes {
		slices.SortFunc(edits, func(a, b textEdit) int { return comparePositions(a.Range.Start, b.Range.Start) })
	}
	return edit, nil
}
