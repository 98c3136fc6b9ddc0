package graph

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/secure-streams/sspolicy/schema"
)

// Mermaid returns the graph as a flowchart of Mermaid.
func (g *Graph) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	var bad, unused []string
	node := func(indent string, n *Node) {
		name, detail := n.label()
		shape := shapes[n.Kind]
		fmt.Fprintf(&b, "%s%s%s\"%s<br/>%s\"%s\n", indent, n.ID, shape.open, mermaidText(name), mermaidText(detail), shape.close)
		switch {
		case n.Problem != "":
			bad = append(bad, n.ID)
		case n.Unused:
			unused = append(unused, n.ID)
		}
	}
	for i, gr := range g.Groups {
		fmt.Fprintf(&b, "  subgraph e%d [\"%s\"]\n", i+1, mermaidText(gr.title()))
		for _, n := range gr.Nodes {
			node("    ", n)
		}
		b.WriteString("  end\n")
	}
	for _, n := range g.Nodes {
		if n.Kind != schema.Streams {
			node("  ", n)
		}
	}
	var badEdges []string
	for i, e := range g.Edges {
		arrow := "-->"
		if e.Problem != "" {
			arrow = "-.->"
			badEdges = append(badEdges, fmt.Sprint(i))
		}
		fmt.Fprintf(&b, "  %s %s|\"%s\"| %s\n", e.From.ID, arrow, mermaidText(e.label()), e.To.ID)
	}
	b.WriteString("  classDef bad stroke:#d00,stroke-dasharray:5 3\n  classDef unused opacity:0.6\n")
	for _, c := range []struct {
		name string
		ids  []string
	}{{"bad", bad}, {"unused", unused}} {
		if len(c.ids) > 0 {
			fmt.Fprintf(&b, "  class %s %s\n", strings.Join(c.ids, ","), c.name)
		}
	}
	if len(badEdges) > 0 {
		fmt.Fprintf(&b, "  linkStyle %s stroke:#d00\n", strings.Join(badEdges, ","))
	}
	return b.String()
}

// mermaidWords escapes the words by which Mermaid finds statements in a text.
var mermaidWords = strings.NewReplacer("style", "#115;tyle", "classDef", "#99;lassDef")

// mermaidText returns a text for a string of Mermaid. Everything except letters, digits
// and a few signs becomes a character entity, since Mermaid reads Markdown, HTML,
// directives and icons in strings.
func mermaidText(s string) string {
	var b strings.Builder
	text := []rune(plain(s))
	for i, r := range text {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), strings.ContainsRune(" -_.,/()", r),
			r == ':' && i+1 < len(text) && (text[i+1] == ' ' || unicode.IsDigit(text[i+1])): // not an icon
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return mermaidWords.Replace(b.String())
}
