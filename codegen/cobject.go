package codegen

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// values maps the paths of struct members to their values. All other members are
// zero.
type values map[string]string

// A node is a member of a struct in the target's layout.
type node struct {
	*member
	path     string
	elements []string // paths of a plain member, or of its array elements
	leaves   []string // paths of all plain members in it
	nodes    []node
}

// layout returns the members of a struct in the target's layout.
func (c *cFile) layout(typ string) []node {
	n, ok := c.nodes[typ]
	if !ok {
		n = layoutOf(c.o.Target, "", layouts[typ])
		c.nodes[typ] = n
	}
	return n
}

func layoutOf(t Target, path string, list []member) (nodes []node) {
	for i := range list {
		m := &list[i]
		if !t.has(m.since, m.until) {
			continue
		}
		n := node{member: m, path: path + m.name, nodes: layoutOf(t, path+m.name+".", m.members)}
		if m.members == nil {
			n.elements = m.elements(n.path)
			n.leaves = n.elements
		}
		for j := range n.nodes {
			n.leaves = append(n.leaves, n.nodes[j].leaves...)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// share writes a struct, unless an equal one exists, and returns the expression for
// it. about becomes its comment.
func (c *cFile) share(typ, kind, name, about string, v values) string {
	var b strings.Builder
	refs := c.object(&b, "", typ, v)
	return c.define(typ, 0, kind, name, about, b.String(), refs)
}

// define writes an object with an initialiser, unless an equal one exists, and
// returns the expression for it. The object is an array of n elements, or a single
// one if n is 0. refs are the expressions for the addresses in it.
func (c *cFile) define(typ string, n int, kind, name, about, initialiser string, refs []string) string {
	key := fmt.Sprintf("%s[%d]%s", typ, n, initialiser)
	if expression, ok := c.objects[key]; ok {
		return expression
	}
	symbol := c.symbol(kind, name)
	expression := c.table(symbol, len(refs) > 0)
	c.objects[key] = expression
	c.part(typ, symbol, n, about, initialiser, refs)
	return expression
}

// table returns the expression for the object with a symbol.
func (c *cFile) table(symbol string, addresses bool) string {
	if addresses {
		return c.o.Prefix + "tables." + symbol
	}
	return c.o.Prefix + "data." + symbol
}

// array writes an array of n structs with addresses. at returns the members of the
// struct at an index.
func (c *cFile) array(typ, symbol string, n int, at func(i int) values) {
	var b strings.Builder
	b.WriteString("{\n")
	var refs []string
	for i := range n {
		b.WriteByte('\t')
		refs = append(refs, c.object(&b, "\t", typ, at(i))...)
		b.WriteString(",\n")
	}
	b.WriteString("}")
	c.part(typ, symbol, n, "", b.String(), refs)
}

// A part is a member of one of the two structs that hold all objects except the
// head of the list. Position-independent code relocates addresses at startup, in
// writable memory, so objects without addresses have a struct of their own.
type part struct {
	typ         string
	n           int      // length of an array, or 0
	expression  string   // for the object
	refs        []string // expressions for the addresses in it
	declaration string
	initialiser string
}

// alignments is the order of types in a struct: larger alignments come first, so
// that the struct has no padding. The default is 1.
var alignments = map[string]int{"lws_metric_policy_t": 0, "uint32_t": 2, "lws_ss_http_respmap_t": 3, "uint8_t": 4, "char": 4}

func alignment(typ string) int {
	if order, ok := alignments[typ]; ok {
		return order
	}
	return 1
}

// part adds an object: an array of n elements, or a single object if n is 0.
func (c *cFile) part(typ, symbol string, n int, about, initialiser string, refs []string) {
	p := part{typ: typ, n: n, expression: c.table(symbol, len(refs) > 0), refs: refs}
	p.declaration = fmt.Sprintf("\t%s %s", typ, symbol)
	if n > 0 {
		p.declaration += fmt.Sprintf("[%d]", n)
	}
	p.declaration += ";\n"
	if about != "" {
		p.initialiser = "\t/* " + about + " */\n"
	}
	p.initialiser += fmt.Sprintf("\t.%s = %s,\n", symbol, strings.ReplaceAll(initialiser, "\n", "\n\t"))
	if len(refs) > 0 {
		c.tables = append(c.tables, p)
	} else {
		c.data = append(c.data, p)
	}
}

// writeParts writes a struct of parts.
func (c *cFile) writeParts(about, symbol string, parts []part) {
	if len(parts) == 0 {
		return
	}
	slices.SortStableFunc(parts, func(a, b part) int { return alignment(a.typ) - alignment(b.typ) })
	fmt.Fprintf(&c.body, "\n/* %s */\nstatic const struct {\n", about)
	for _, p := range parts {
		c.body.WriteString(p.declaration)
	}
	fmt.Fprintf(&c.body, "} %s%s SSPOLICY_ALIGN(%s) = {\n", c.o.Prefix, symbol, parts[0].typ)
	for _, p := range parts {
		c.body.WriteString(p.initialiser)
	}
	c.body.WriteString("};\n")
}

// object writes the initialiser of a struct, and returns the expressions for the
// addresses in it.
func (c *cFile) object(b *strings.Builder, indent, typ string, v values) (refs []string) {
	layout := c.layout(typ)
	if len(v) == 0 { // C has no empty initialiser
		v = values{layout[0].path: "NULL"}
	}
	b.WriteString("{\n")
	refs = c.members(b, indent+"\t", layout, v)
	b.WriteString(indent + "}")
	return refs
}

// members writes the values of the members of a struct, ordered and nested like the
// struct, as C++ requires.
func (c *cFile) members(b *strings.Builder, indent string, layout []node, v values) (refs []string) {
	inner := indent + "\t"
	value := func(text string, isPointer bool) {
		if isPointer && text != "NULL" {
			refs = append(refs, text)
		}
		if strings.Contains(text, "\n") {
			text = strings.ReplaceAll(text, "\n", "\n"+inner)
		}
		b.WriteString(text)
		b.WriteString(",\n")
	}
	for i := range layout {
		n := &layout[i]
		if !v.any(n) {
			continue
		}
		if n.macro != "" {
			c.need(n.macro, n.name)
		}
		b.WriteString(indent)
		b.WriteByte('.')
		b.WriteString(n.name)
		b.WriteString(" = ")
		switch {
		case n.nodes != nil:
			b.WriteString("{\n")
			refs = append(refs, c.members(b, inner, n.nodes, v)...)
			b.WriteString(indent + "},\n")
		case n.count > 0:
			b.WriteString("{\n")
			for _, e := range n.elements {
				b.WriteString(inner)
				value(cmp.Or(v[e], "NULL"), n.isPointer())
			}
			b.WriteString(indent + "},\n")
		default:
			value(v[n.path], n.isPointer())
		}
	}
	return refs
}

// any reports whether v has a value for the member or a part of it.
func (v values) any(n *node) bool {
	for _, leaf := range n.leaves {
		if v[leaf] != "" {
			return true
		}
	}
	return false
}
