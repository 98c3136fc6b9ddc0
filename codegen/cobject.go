package codegen

import (
	"cmp"
	"fmt"
	"strings"
)

// values are what the members of a struct are set to, by their path. What is
// not there is zero.
type values map[string]string

// A node is a member of a struct as the target has it.
type node struct {
	*member
	path     string
	elements []string // paths of what it holds, unless it has members
	leaves   []string // paths of what it and its members hold
	nodes    []node
}

// layout returns the members of a struct as the target has it.
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

// share writes an object, unless there is an equal one, and returns the
// expression for it. about is for people.
func (c *cFile) share(typ, kind, name, about string, v values) string {
	var b strings.Builder
	pointers := c.object(&b, "", typ, v)
	return c.define(typ, "", kind, name, about, b.String(), func() {
		c.size.structs[typ]++
		c.size.pointers += pointers
	})
}

// define writes an object by its initialiser, unless there is an equal one, and
// returns the expression for it. suffix makes an array of the type. What is
// written is reported to wrote.
func (c *cFile) define(typ, suffix, kind, name, about, initialiser string, wrote func()) string {
	key := typ + suffix + initialiser
	if expression, ok := c.shared[key]; ok {
		return expression
	}
	symbol := c.symbol(kind, name)
	c.shared[key] = c.table(symbol)
	c.part(typ, symbol+suffix, about, initialiser)
	wrote()
	return c.shared[key]
}

// table returns the expression for an object that streamtypes point to.
func (c *cFile) table(symbol string) string { return c.o.Prefix + "tables." + symbol }

// array writes an array of n objects, of which at returns the members.
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

// parts are members of the struct that all objects are in which streamtypes
// point to. So there is nothing between them that a compiler would align them
// with.
type parts struct{ declarations, initialisers strings.Builder }

// alignments has the place of each type among the parts: those that are
// aligned more come first, so that the struct has no holes.
var alignments = map[string]int{"uint32_t": 1, "lws_ss_http_respmap_t": 2, "uint8_t": 3, "char": 3}

// part writes an object. declarator is its symbol, with the number of elements
// if it is an array.
func (c *cFile) part(typ, declarator, about, initialiser string) {
	p := &c.parts[alignments[typ]]
	fmt.Fprintf(&p.declarations, "\t%s %s;\n", typ, declarator)
	if about != "" {
		fmt.Fprintf(&p.initialisers, "\t/* %s */\n", about)
	}
	symbol, _, _ := strings.Cut(declarator, "[")
	fmt.Fprintf(&p.initialisers, "\t.%s = %s,\n", symbol, strings.ReplaceAll(initialiser, "\n", "\n\t"))
}

// writeParts writes the struct.
func (c *cFile) writeParts() {
	if c.parts[0].declarations.Len()+c.parts[1].declarations.Len()+c.parts[2].declarations.Len()+c.parts[3].declarations.Len() == 0 {
		return
	}
	c.body.WriteString("\n/* What the streamtypes point to. */\nstatic const struct {\n")
	for i := range c.parts {
		c.body.WriteString(c.parts[i].declarations.String())
	}
	fmt.Fprintf(&c.body, "} %stables = {\n", c.o.Prefix)
	for i := range c.parts {
		c.body.WriteString(c.parts[i].initialisers.String())
	}
	c.body.WriteString("};\n")
}

// object writes the initialiser of a struct, and returns how many addresses are
// in it.
func (c *cFile) object(b *strings.Builder, indent, typ string, v values) int {
	layout := c.layout(typ)
	if len(v) == 0 { // which C has no empty braces for
		v = values{layout[0].path: "NULL"}
	}
	b.WriteString("{\n")
	pointers := c.members(b, indent+"\t", layout, v)
	b.WriteString(indent + "}")
	return pointers
}

// members writes what v has for the members of a struct. They are in order,
// and nested as the struct is, since C++ asks for that.
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

// any reports whether there is a value for the member, or inside of it.
func (v values) any(n *node) bool {
	for _, leaf := range n.leaves {
		if v[leaf] != "" {
			return true
		}
	}
	return false
}
