package lsp

import (
	"cmp"
	"context"
	"slices"

	"github.com/secure-streams/sspolicy/schema"
)

func comparePositions(a, b Position) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Character, b.Character))
}

// The kinds of symbols in use.
const (
	symbolNamespace = 3
	symbolClass     = 5
	symbolProperty  = 7
)

// symbols returns the sections and their definitions.
func (s *server) symbols(_ context.Context, snap *snapshot, _ documentParams) (any, error) {
	t := snap.scan()
	list := []documentSymbol{}
	for _, m := range t.doc.Root.Members() {
		sym := documentSymbol{Name: m.Key, Kind: symbolProperty, Range: snap.span(m.Span()), SelectionRange: snap.span(m.Name.Span)}
		if m.Key == "" {
			sym.Name = `""` // clients reject an empty name
		}
		if m.Value.Kind == schema.ArrayKind {
			sym.Kind = symbolNamespace
		} else if m.Value.Kind != schema.ObjectKind {
			sym.Detail = short(&m.Value)
		}
		for _, d := range t.policy.Section(schema.Section(m.Key)) {
			if d.Value.Span.Start < m.Value.Span.Start || d.Value.Span.End > m.Value.Span.End || m.Value.Kind != schema.ArrayKind {
				continue // it belongs to another section of the same name
			}
			at := schema.Span{Source: t.doc.Source, Start: min(d.NameSpan.Start, d.Value.Span.Start), End: d.Value.Span.End}
			def := documentSymbol{Name: d.Name, Kind: symbolClass, Range: snap.span(at), SelectionRange: snap.span(d.NameSpan)}
			if d.Name == "" {
				def.Name = `""`
			}
			if d.Section == schema.Streams {
				def.Detail = d.Protocol()
			}
			sym.Children = append(sym.Children, def)
		}
		list = append(list, sym)
	}
	return list, nil
}

// folding returns the objects, arrays and comment blocks that span several lines.
func (s *server) folding(_ context.Context, snap *snapshot, _ documentParams) (any, error) {
	t := snap.scan()
	list := []foldingRange{}
	add := func(s schema.Span, kind string) {
		if r := snap.span(s); r.End.Line > r.Start.Line {
			list = append(list, foldingRange{r.Start.Line, r.End.Line, kind})
		}
	}
	var walk func(v *schema.Value)
	walk = func(v *schema.Value) {
		if v.Kind != schema.ObjectKind && v.Kind != schema.ArrayKind {
			return
		}
		add(v.Span, "")
		for _, m := range v.Members() {
			walk(&m.Value)
		}
		for _, e := range v.Elems() {
			walk(&e.Value)
		}
	}
	walk(&t.doc.Root)
	comments := t.doc.Source.Comments
	for i := 0; i < len(comments); {
		block := comments[i]
		line := snap.text.position(block.Start).Line
		for i++; i < len(comments) && snap.text.position(comments[i].Start).Line == line+1; i++ {
			block.End = comments[i].End
			line++
		}
		add(block, "comment")
	}
	slices.SortFunc(list, func(a, b foldingRange) int {
		return cmp.Or(cmp.Compare(a.StartLine, b.StartLine), cmp.Compare(a.EndLine, b.EndLine))
	})
	return list, nil
}

// semanticTokens returns the comments, which editors do not expect in JSON.
func (s *server) semanticTokens(_ context.Context, snap *snapshot, _ documentParams) (any, error) {
	tokens := semanticTokens{Data: []uint32{}}
	var last Position
	for _, c := range snap.scan().doc.Source.Comments {
		r := snap.span(c)
		if r.Start.Line != r.End.Line {
			continue // its line ends in \r
		}
		column := r.Start.Character
		if r.Start.Line == last.Line {
			column -= last.Character
		}
		tokens.Data = append(tokens.Data, r.Start.Line-last.Line, column, r.End.Character-r.Start.Character, 0, 0)
		last = r.Start
	}
	return tokens, nil
}
