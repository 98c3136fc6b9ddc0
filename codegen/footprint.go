package codegen

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Footprint is the size of C tables in read-only memory, in bytes, as gcc lays
// them out for an architecture. Equal strings count once, since compilers merge
// them. Savings of a linker that merges the ends of strings are not included.
type Footprint struct {
	ABI     string `json:"abi"`
	Strings int    `json:"strings"`
	DER     int    `json:"der"`   // certificates and keys
	Numbers int    `json:"waits"` // of backoff schemes
	Structs int    `json:"structs"`

	Relocations int `json:"relocations"` // addresses, in structs

	Os Sections `json:"gcc_Os"`
	O2 Sections `json:"gcc_O2"`

	StreamTypes  []StreamTypeFootprint  `json:"streamtypes"`
	Certificates []CertificateFootprint `json:"certificates"`
}

// A FootprintPart is a row in a table of footprints.
type FootprintPart struct {
	Kind  string
	Bytes int
}

// Parts returns the rows of a table of footprints: one for each kind of content,
// and totals.
func (f Footprint) Parts() []FootprintPart {
	return []FootprintPart{
		{"strings", f.Strings},
		{"certificates and keys", f.DER},
		{"waits", f.Numbers},
		{"structs", f.Structs},
		{"padding", f.Os.Total - f.Strings - f.DER - f.Numbers - f.Structs},
		{"total with gcc -Os", f.Os.Total},
		{"total with gcc -O2", f.O2.Total},
		{".data.rel.ro with -fPIC", f.Os.Relocated},
	}
}

// Sections holds the sizes of the sections that a compiler makes of tables,
// including padding: without optimization for size, strings are aligned more
// strictly.
type Sections struct {
	Total int `json:"total"` // in read-only memory

	// Position-independent code puts objects that hold addresses into .data.rel.ro,
	// which a loader writes. PIC is the total in that case.
	PIC       int `json:"pic_total"`
	Relocated int `json:"pic_data_rel_ro"`
}

// A StreamTypeFootprint is the size of a streamtype and all objects that it needs,
// without padding.
type StreamTypeFootprint struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
	Own   int    `json:"own"` // the part of Bytes that no other streamtype needs
}

// A CertificateFootprint is the size of a certificate or key, with the streamtypes
// that need it.
type CertificateFootprint struct {
	Name        string   `json:"name"`
	Bytes       int      `json:"bytes"`
	StreamTypes []string `json:"streamtypes"`
}

// An abi holds the rules by which gcc lays out data for an architecture.
type abi struct {
	name    string
	pointer int // size
	int64   int // alignment

	// The alignment of strings of at least alignedString bytes, including NUL, in
	// sections that the linker merges, with -O2 and -Os. That of shorter strings is
	// 1.
	stringO2, alignedString, stringOs int
}

// abis are the architectures of footprints (CONSTANT_ALIGNMENT in gcc/config of gcc
// 12).
var abis = []*abi{
	{name: "arm", pointer: 4, int64: 8, stringO2: 4, stringOs: 1},
	{name: "riscv32", pointer: 4, int64: 8, stringO2: 4, stringOs: 4},
	{name: "xtensa", pointer: 4, int64: 8, stringO2: 4, stringOs: 1},
	{name: "i386", pointer: 4, int64: 4, stringO2: 4, alignedString: 31, stringOs: 1},
	{name: "aarch64", pointer: 8, int64: 8, stringO2: 8, stringOs: 1},
	{name: "riscv64", pointer: 8, int64: 8, stringO2: 8, stringOs: 8},
	{name: "x86-64", pointer: 8, int64: 8, stringO2: 8, alignedString: 31, stringOs: 1},
}

// ABIs returns the names of the architectures of footprints.
func ABIs() []string {
	var names []string
	for _, a := range abis {
		names = append(names, a.name)
	}
	return names
}

// CFootprint returns the footprint of the tables that [C] writes, for each
// architecture. It assumes an lws with the build options of o. Options that o does
// not set are assumed to be on if the policy needs them or, as with servers, if lws
// sets them by default.
func CFootprint(p *policy.Policy, o COptions) ([]Footprint, error) {
	c, err := newCFile(p, o, false)
	if err != nil {
		return nil, err
	}
	return c.footprints(), nil
}

func (c *cFile) footprints() []Footprint {
	var list []Footprint
	for _, a := range abis {
		list = append(list, c.footprint(a))
	}
	return list
}

func (c *cFile) footprint(a *abi) Footprint {
	f := Footprint{ABI: a.name, Os: c.sections(a, a.stringOs), O2: c.sections(a, a.stringO2), Certificates: []CertificateFootprint{}}
	for _, n := range c.literals {
		f.Strings += n
	}
	for _, p := range c.parts() {
		size := c.partSize(a, &p)
		f.Relocations += len(p.refs)
		switch p.typ {
		case "char":
			f.Strings += size
		case "uint8_t":
			f.DER += size
		case "uint32_t":
			f.Numbers += size
		default:
			f.Structs += size
		}
	}
	c.divide(a, &f)
	return f
}

// parts returns all objects in the order in which gcc writes them.
func (c *cFile) parts() []part {
	heads := slices.Clone(c.heads)
	slices.Reverse(heads)
	return slices.Concat(heads, c.tables, c.data)
}

func (c *cFile) partSize(a *abi, p *part) int {
	size, _ := c.typeSize(a, p.typ)
	return size * max(1, p.n)
}

// sections returns the sizes of the sections, given the alignment of strings.
func (c *cFile) sections(a *abi, str int) (s Sections) {
	// gcc writes objects from the last to the first.
	end := func(size int, parts ...part) int {
		if len(parts) == 0 {
			return size
		}
		n, align := c.structOf(a, parts)
		return alignUp(size, align) + n
	}
	for _, h := range slices.Backward(c.heads) {
		s.Relocated = end(s.Relocated, h)
	}
	s.Relocated = end(s.Relocated, c.tables...)
	s.Total = end(s.Relocated, c.data...)
	s.PIC = s.Relocated + end(0, c.data...)

	// Each string is padded, except the last of its section.
	short, last := 0, 0
	seen := map[string]bool{}
	for _, p := range c.parts() {
		for _, r := range p.refs {
			r = target(r)
			n := c.literals[r]
			if n == 0 || seen[r] {
				continue
			}
			seen[r] = true
			if n < a.alignedString {
				short += n
			} else {
				last = alignUp(last, str) + n
			}
		}
	}
	s.Total += short + last
	s.PIC += short + last
	return s
}

func alignUp(n, align int) int { return (n + align - 1) / align * align }

// structOf returns the size and alignment of a struct of objects.
func (c *cFile) structOf(a *abi, parts []part) (size, align int) {
	align = 1
	for i := range parts {
		_, al := c.typeSize(a, parts[i].typ)
		size = alignUp(size, al) + c.partSize(a, &parts[i])
		align = max(align, al)
	}
	return alignUp(size, align), align
}

// target returns the expression for the object or string that an address points to.
func target(expression string) string {
	if strings.HasPrefix(expression, "(") {
		_, expression, _ = strings.Cut(expression, ")")
	}
	expression = strings.TrimPrefix(expression, "&")
	if !strings.HasPrefix(expression, `"`) {
		expression, _, _ = strings.Cut(expression, "[")
	}
	return expression
}

// divide sets the sizes of streamtypes and certificates.
func (c *cFile) divide(a *abi, f *Footprint) {
	parts := map[string]*part{}
	all := c.parts()
	for i := range all {
		parts[all[i].expression] = &all[i]
	}
	size := func(expression string) int {
		if part := parts[expression]; part != nil {
			return c.partSize(a, part)
		}
		return c.literals[expression]
	}
	// The list of streamtypes and metrics belong to the policy, not to a streamtype.
	shared := map[string]bool{}
	for _, part := range all {
		if part.typ == "lws_ss_policy_t" || part.typ == "lws_metric_policy_t" {
			shared[part.expression] = true
		}
	}
	var add func(needs map[string]bool, part *part)
	add = func(needs map[string]bool, part *part) {
		for _, r := range part.refs {
			r = target(r)
			if needs[r] || shared[r] {
				continue
			}
			needs[r] = true
			if next := parts[r]; next != nil {
				add(needs, next)
			}
		}
	}
	needs := make([]map[string]bool, len(c.streams))
	users := map[string]int{}
	for i, stream := range c.streams {
		needs[i] = map[string]bool{}
		add(needs[i], parts[stream.expression])
		for r := range needs[i] {
			users[r]++
		}
	}
	for i, stream := range c.streams {
		st := StreamTypeFootprint{Name: stream.name, Bytes: c.partSize(a, parts[stream.expression])}
		st.Own = st.Bytes
		for r := range needs[i] {
			n := size(r)
			st.Bytes += n
			if users[r] == 1 {
				st.Own += n
			}
		}
		f.StreamTypes = append(f.StreamTypes, st)
	}
	for _, cert := range c.certs {
		own := map[string]bool{}
		expression := target(c.expressions[cert])
		add(own, parts[expression])
		x := CertificateFootprint{Name: cert.Name, Bytes: size(expression)}
		for r := range own {
			x.Bytes += size(r)
		}
		for i, stream := range c.streams {
			if needs[i][expression] {
				x.StreamTypes = append(x.StreamTypes, stream.name)
			}
		}
		f.Certificates = append(f.Certificates, x)
	}
}

// typeSize returns the size and alignment of a type.
func (c *cFile) typeSize(a *abi, typ string) (size, align int) {
	if layouts[typ] != nil {
		return c.structSize(a, c.layout(typ), false)
	}
	m := member{typ: typ}
	return m.size(a)
}

// structSize returns the size and alignment of a struct or union.
func (c *cFile) structSize(a *abi, layout []node, union bool) (size, align int) {
	align = 1
	bits := 0 // used in the last byte of bit fields
	for i := range layout {
		n := &layout[i]
		if n.macro != "" && !c.built(n.macro) {
			continue
		}
		var s, al int
		if n.nodes != nil {
			s, al = c.structSize(a, n.nodes, n.union)
		} else {
			s, al = n.size(a)
			s *= max(1, n.count)
		}
		align = max(align, al)
		if n.bits > 0 && bits > 0 && bits+n.bits <= 8 {
			bits += n.bits
			continue
		}
		bits = n.bits
		if union {
			size = max(size, s)
		} else {
			size = alignUp(size, al) + s
		}
	}
	return alignUp(size, align), align
}

// size returns the size and alignment of a plain member, or of its elements.
func (m *member) size(a *abi) (size, align int) {
	switch typ := strings.TrimSpace(m.typ); {
	case m.isPointer() || typ == "size_t":
		size = a.pointer
	case typ == "uint64_t":
		return 8, a.int64
	case typ == "uint16_t":
		size = 2
	case typ == "uint8_t" || typ == "char":
		size = 1
	default: // int, uint32_t, int32_t
		size = 4
	}
	return size, size
}
