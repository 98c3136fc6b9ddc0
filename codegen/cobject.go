package codegen

import (
	"cmp"
	"fmt"
	"strings"
)

// values are the values of members of a struct, by path. Others are zero.
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

// share writes an object, unless an equal one exists, and returns the expression for
// it. about is its comment.
func (c *cFile) share(typ, kind, name, about string, v values) string {
	var b strings.Builder
	pointers := c.object(&b, "", typ, v)
	return c.define(typ, "", kind, name, about, b.String(), func() {
		c.size.structs[typ]++
		c.size.pointers += pointers
	})
}

// define writes an object with an initialiser, unless an equal one exists, and returns
// the expression for it. A suffix makes it an array. If it writes the object, define
// calls count.
func (c *cFile) define(typ, suffix, kind, name, about, initialiser string, count func()) string {
	key := typ + suffix + initialiser
	if expression, ok := c.objects[key]; ok {
		return expression
	}
	symbol := c.symbol(kind, name)
	c.objects[key] = c.table(symbol)
	c.part(typ, symbol+suffix, about, initialiser)
	count()
	return c.objects[key]
}

// table returns the expression for an object with a symbol.
func (c *cFile) table(symbol string) string { return c.o.Prefix + "tables." + symbol }

// array writes an array of n objects. at returns the members of each.
func (c *cFile) array(typ, symbol string, n int, at func(i int) values) {
	var b strings.Builder
	b.WriteString("{\n")
	for i := range n {
		b.WriteByte('\t')
		c.size.pointers += c.object(&b, "\t", typ, at(i))
		b.WriteString(",\n")
	}
	b.WriteString("}")
	c.part(typ, fmt.Sprintf("%s[%d]", symbol, n), "", b.String())
	c.size.structs[typ] += n
}

// parts are members of the one struct that holds all objects that streamtypes point
// to. As members they have no padding that compilers add to separate objects.
type parts struct{ declarations, initialisers strings.Builder }

// alignments is the order of types in the struct: larger alignments come first, so
// that the struct has no holes. The default is 0.
var alignments = map[string]int{"uint32_t": 1, "lws_ss_http_respmap_t": 2, "uint8_t": 3, "char": 3}

// part writes an object. declarator is its symbol, with the length of an array.
func (c *cFile) part(typ, declarator, about, initialiser string) {
	p := &c.parts[alignments[typ]]
	fmt.Fprintf(&p.declarations, "\t%s %s;\n", typ, declarator)
	if about != "" {
		fmt.Fprintf(&p.initialisers, "\t/* %s */\n", about)
	}
	symbol, _, _ := strings.Cut(declarator, "[")
	fmt.Fprintf(&p.initialisers, "\t.%s = %s,\n", symbol, strings.ReplaceAll(initialiser, "\n", "\n\t"))
}

// writeParts writes the struct of all parts.
func (c *cFile) writeParts() {
	if c.parts[0].declarations.Len()+c.parts[1].declarations.Len()+c.parts[2].declarations.Len()+c.parts[3].declarations.Len() == 0 {
		return
	}
	c.body.WriteString("\n/* The objects that streamtypes point to. */\nstatic const struct {\n")
	for i := range c.parts {
		c.body.WriteString(c.parts[i].declarations.String())
	}
	fmt.Fprintf(&c.body, "} %stables = {\n", c.o.Prefix)
	for i := range c.parts {
		c.body.WriteString(c.parts[i].initialisers.String())
	}
	c.body.WriteString("};\n")
}

// object writes the initialiser of a struct, and returns its number of addresses.
func (c *cFile) object(b *strings.Builder, indent, typ string, v values) int {
	layout := c.layout(typ)
	if len(v) == 0 { // C has no empty initialiser
		v = values{layout[0].path: "NULL"}
	}
	b.WriteString("{\n")
	pointers := c.members(b, indent+"\t", layout, v)
	b.WriteString(indent + "}")
	return pointers
}

// members writes the values of the members of a struct. They are in order and nested
// like the struct, as C++ requires.
func (c *cFile) members(b *strings.Builder, indent string, layout []node, v values) (pointers int) {
	inner := indent + "\t"
	value := func(text string, isPointer bool) {
		if isPointer && text != "NULL" {
			pointers++
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
			c.macros[n.macro] = true
		}
		b.WriteString(indent)
		b.WriteByte('.')
		b.WriteString(n.name)
		b.WriteString(" = ")
		switch {
		case n.nodes != nil:
			b.WriteString("{\n")
			pointers += c.members(b, inner, n.nodes, v)
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
	return pointers
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
