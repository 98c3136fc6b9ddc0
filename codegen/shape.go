package codegen

import "slices"

// A shape is where a build of lws has the members of a struct.
type shape struct {
	size, align int
	at          map[string]place // by path
}

// A place is that of a plain member, or of an element of an array.
type place struct {
	offset, size int
	bit          int // 1 + the place of a bit field in its byte, from the first bit that the ABI allots
}

// A build is what decides the layout of lws's structs.
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

// place adds the places of the members of a struct or union that begins at start, and
// returns its size and alignment.
func (b build) place(at map[string]place, layout []node, union bool, start int) (size, align int) {
	align = 1
	bits := 0 // of the last byte that bit fields use
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
