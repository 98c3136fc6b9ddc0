package schema

import "reflect"

// A slab allocates values in batches. A batch stays in memory while one of its
// values is in use, which suits the nodes of a document. The zero value is ready to
// use.
type slab[T any] struct {
	free []T
	size int // of the last allocation
}

// maxSlab is the maximum size of an allocation in bytes. The Go runtime rounds a
// larger one up to whole pages.
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
