package schema

// A slab allocates values many at a time. They stay in memory as long as one of
// them is in use, as the nodes of a document do. The zero value is ready to use.
type slab[T any] struct {
	free []T
	size int // of the last allocation
}

const maxSlab = 256 // values in one allocation

// new returns a pointer to a zero value.
func (s *slab[T]) new() *T {
	if len(s.free) == 0 {
		s.size = min(max(4, 2*s.size), maxSlab)
		s.free = make([]T, s.size)
	}
	v := &s.free[0]
	s.free = s.free[1:]
	return v
}
