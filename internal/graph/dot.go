package graph

import (
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// shapes holds the form of each kind of node: a shape of Graphviz, and the brackets
// of Mermaid.
var shapes = map[schema.Section]struct{ dot, open, close string }{
	schema.Streams:     {"box", "[", "]"},
	schema.Retry:       {"ellipse", "([", "])"},
	schema.TrustStores: {"folder", "[[", "]]"},
	schema.Auth:        {"hexagon", "{{", "}}"},
	schema.Certs:       {"note", "[/", "/]"},
}

// label returns the texts of a node.
func (n *Node) label() (name, detail string) {
	detail = n.Detail
	switch {
	case n.Problem != "":
		detail += ": " + n.Problem
	case n.Unused:
		detail += ", unused"
	}
	return plain(n.Name), plain(detail)
}

// DOT returns the graph in the language of Graphviz.
func (g *Graph) DOT() string {
	var b strings.Builder
	b.WriteString("digraph policy {\n\trankdir=LR;\n\tnode [fontname=\"sans-serif\", fontsize=11];\n\tedge [fontname=\"sans-serif\", fontsize=9];\n")
	fmt.Fprintf(&b, "\tlabel=%s;\n", dotString(g.Title))
	node := func(indent string, n *Node) {
		name, detail := n.label()
		// "\n" in a label is a line break.
		text := strings.TrimSuffix(dotString(name), `"`) + `\n` + strings.TrimPrefix(dotString(detail), `"`)
		style := ""
		switch {
		case n.Problem != "":
			style = ", color=red, fontcolor=red, style=dashed"
		case n.Unused:
			style = ", color=gray, fontcolor=gray"
		}
		fmt.Fprintf(&b, "%s%s [shape=%s, label=%s%s];\n", indent, n.ID, shapes[n.Kind].dot, text, style)
	}
	for i, gr := range g.Groups {
		fmt.Fprintf(&b, "\tsubgraph cluster_%d {\n\t\tlabel=%s;\n", i+1, dotString(gr.title()))
		for _, n := range gr.Nodes {
			node("\t\t", n)
		}
		b.WriteString("\t}\n")
	}
	for _, n := range g.Nodes {
		if n.Kind != schema.Streams {
			node("\t", n)
		}
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "\t%s -> %s [label=%s", e.From.ID, e.To.ID, dotString(e.label()))
		if e.Problem != "" {
			b.WriteString(", color=red, fontcolor=red, style=dashed")
		}
		b.WriteString("];\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// title returns the endpoint with its detail.
func (g *Group) title() string {
	if g.Detail == "" {
		return g.Name
	}
	return g.Name + " (" + g.Detail + ")"
}

// label returns the key, with the problem if there is one.
func (e *Edge) label() string {
	if e.Problem == "" {
		return e.Key
	}
	return e.Key + ": " + e.Problem
}

// dotEscapes escapes what has a meaning in a string of DOT: quotes, the escapes of
// labels, and HTML entities, which Graphviz decodes in all labels.
var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;")

// dotString returns a text as a string of DOT.
func dotString(s string) string { return `"` + dotEscapes.Replace(plain(s)) + `"` }
