package codegen

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A Footprint is the size of C tables in read-only memory, in bytes. Equal strings
// count once, since compilers merge them. It does not include the padding of the
// tables as a whole, nor what a linker saves by merging the ends of strings.
type Footprint struct {
	Bits    int // of a pointer: 32 or 64
	Strings int
	DER     int // certificates and keys
	Numbers int // waits of backoff schemes
	Structs int

	// Pointers is the part of Structs that holds addresses, which a
	// position-independent image relocates.
	Pointers int
}

// Total returns the sum.
func (f Footprint) Total() int { return f.Strings + f.DER + f.Numbers + f.Structs }

// CFootprint returns the footprint of the tables that C writes, for pointers of 32 and
// of 64 bits. It assumes an lws built with servers, the default, and with the options
// that the policy needs.
func CFootprint(p *policy.Policy, o COptions) ([2]Footprint, error) {
	c, err := newCFile(p, o, false)
	if err != nil {
		return [2]Footprint{}, err
	}
	return [2]Footprint{c.footprint(4), c.footprint(8)}, nil
}

func (c *cFile) footprint(pointer int) Footprint {
	f := Footprint{Bits: 8 * pointer, Pointers: pointer * c.pointers}
	for s := range c.literals {
		f.Strings += len(s) + 1
	}
	for _, p := range slices.Concat(c.tables, c.data, []part{{typ: "lws_ss_policy_t"}}) {
		n := max(1, p.n)
		f.Pointers += pointer * p.pointers
		switch p.typ {
		case "char":
			f.Strings += n
		case "uint8_t":
			f.DER += n
		case "uint32_t":
			f.Numbers += 4 * n
		default:
			size, _ := c.structSize(c.layout(p.typ), false, pointer)
			f.Structs += n * size
		}
	}
	return f
}

// structSize returns the size and alignment of a struct or union for ABIs that align
// each member to its size. (i386 does not for 64-bit numbers; metric policies have
// one.)
func (c *cFile) structSize(layout []node, union bool, pointer int) (size, align int) {
	align = 1
	bits := 0 // of the last byte that bit fields use
	for i := range layout {
		n := &layout[i]
		if n.macro != "" && n.macro != "LWS_WITH_SERVER" && !c.macros[n.macro] {
			continue
		}
		var s, a int
		if n.nodes != nil {
			s, a = c.structSize(n.nodes, n.union, pointer)
		} else {
			s = n.size(pointer)
			a = s
			s *= max(1, n.count)
		}
		align = max(align, a)
		if n.bits > 0 && bits > 0 && bits+n.bits <= 8 {
			bits += n.bits
			continue
		}
		bits = n.bits
		if union {
			size = max(size, s)
		} else {
			size = (size+a-1)/a*a + s
		}
	}
	return (size + align - 1) / align * align, align
}

// size returns the size of a plain member, or of its elements.
func (m *member) size(pointer int) int {
	switch typ := strings.TrimSpace(m.typ); {
	case m.isPointer() || typ == "size_t":
		return pointer
	case typ == "uint64_t":
		return 8
	case typ == "uint16_t":
		return 2
	case typ == "uint8_t":
		return 1
	default: // int, uint32_t, int32_t
		return 4
	}
}
