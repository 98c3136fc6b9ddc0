package codegen

import "slices"

// A shape holds the offsets of the members of a struct in a build of lws.
type shape struct {
	size, align int
	at          map[string]place // by path
}

// A place is the position of a plain member, or of an element of an array.
type place struct {
	offset, size int
	bit          int // 1 + the position of a bit field in its byte, in the ABI's allocation order
}

// A build determines the layout of lws's structs.
type build struct {
	target  Target
	without []string // macros that the build lacks
	abi     *abi
}

// shape returns the shape of a struct of layouts.
func (b build) shape(typ string) *shape {
	s := &shape{at: map[string]place{}}
	s.size, s.align = b.place(s.at, layoutOf(b.target, "", layouts[typ]), false, 0)
	return s
}

// place adds the positions of the members of a struct or union that begins at
// start, and returns its size and alignment.
func (b build) place(at map[string]place, layout []node, union bool, start int) (size, align int) {
	align = 1
	bits := 0 // used in the last byte of bit fields
	for i := range layout {
		n := &layout[i]
		if slices.Contains(b.without, n.macro) {
			continue
		}
		var s, a int
		if n.nodes != nil {
			s, a = b.place(map[string]place{}, n.nodes, n.union, 0)
		} else {
			s, a = n.size(b.abi)
			s *= max(1, n.count)
		}
		align = max(align, a)
		offset := start + alignUp(size, a)
		switch {
		case union:
			offset, size = start, max(size, s)
		case n.bits > 0 && bits > 0 && bits+n.bits <= 8:
			offset = start + size - 1
		default:
			bits = 0
			size = offset - start + s
		}
		if n.nodes != nil {
			b.place(at, n.nodes, n.union, offset)
			continue
		}
		for i, path := range n.elements {
			one, _ := n.size(b.abi)
			p := place{offset: offset + i*one, size: one}
			if n.bits > 0 {
				p.bit = bits + 1
			}
			at[path] = p
		}
		bits += n.bits
	}
	return alignUp(size, align), align
}
