package codegen

import (
	"cmp"
	"fmt"
	"strings"
)

// values are what the members of a struct are set to, by their path. What is
// not there is zero.
type values map[string]string

func (c *cFile) define(typ, name string, v values) {
	fmt.Fprintf(&c.body, "\nstatic const %s %s = ", typ, name)
	c.object("", typ, v, false)
}

// array writes an array of n objects, of which at returns the members.
func (c *cFile) array(typ, name string, n int, at func(i int) values) {
	list := make([]values, n)
	for i := range list {
		list[i] = at(i) // which may write what it refers to
	}
	fmt.Fprintf(&c.body, "\nstatic const %s %s[] = {\n", typ, name)
	for _, v := range list {
		c.object("\t", typ, v, true)
	}
	c.body.WriteString("};\n")
}

// object writes the initialiser of a struct.
func (c *cFile) object(indent, typ string, v values, element bool) {
	if len(v) == 0 { // which C has no empty braces for
		v = values{layouts[typ][0].name: "NULL"}
	}
	if element {
		c.body.WriteString(indent)
	}
	c.body.WriteString("{\n")
	c.members(indent+"\t", "", layouts[typ], v)
	c.body.WriteString(indent + "}")
	if element {
		c.body.WriteString(",\n")
	} else {
		c.body.WriteString(";\n")
	}
}

// members writes what v has for the members of a struct. They are in order,
// and nested as the struct is, since C++ asks for that.
func (c *cFile) members(indent, path string, list []member, v values) {
	inner := indent + "\t"
	value := func(path string) string { return strings.ReplaceAll(v[path], "\n", "\n"+inner) }
	for i := range list {
		m := &list[i]
		at := path + m.name
		if !c.o.Target.has(m.since, m.until) || !v.any(at, m) {
			continue
		}
		if m.macro != "" {
			c.macros[m.macro] = true
		}
		fmt.Fprintf(&c.body, "%s.%s = ", indent, m.name)
		switch {
		case m.members != nil:
			c.body.WriteString("{\n")
			c.members(inner, at+".", m.members, v)
			c.body.WriteString(indent + "},\n")
		case m.count > 0:
			c.body.WriteString("{\n")
			for _, e := range m.elements(at) {
				fmt.Fprintf(&c.body, "%s%s,\n", inner, cmp.Or(value(e), "NULL"))
			}
			c.body.WriteString(indent + "},\n")
		default:
			fmt.Fprintf(&c.body, "%s,\n", value(at))
		}
	}
}

// any reports whether there is a value for the member, or inside of it.
func (v values) any(path string, m *member) bool {
	for i := range m.members {
		if v.any(path+"."+m.members[i].name, &m.members[i]) {
			return true
		}
	}
	for _, e := range m.elements(path) {
		if v[e] != "" {
			return true
		}
	}
	return false
}
