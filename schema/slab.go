package schema

import "reflect"

// A slab allocates values many at a time. They stay in memory as long as one of
// them is in use, as the nodes of a document do. The zero value is ready to use.
type slab[T any] struct {
	free []T
	size int // of the last allocation
}

// maxSlab is the most bytes of an allocation. The Go runtime rounds a larger one
// up to whole pages.
const maxSlab = 32 << 10

// new returns a pointer to a zero value.
func (s *slab[T]) new() *T {
	if len(s.free) == 0 {
		s.size = min(max(4, 2*s.size), maxSlab/int(reflect.TypeFor[T]().Size()))
		s.free = make([]T, s.size)
	}
	v := &s.free[0]
	s.free = s.free[1:]
	return v
}
