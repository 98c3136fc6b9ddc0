package codegen

import "strconv"

// symbols hands out names that are not taken yet.
type symbols struct {
	taken map[string]bool
	next  map[string]int // what to try after a name
}

func newSymbols(reserved ...string) *symbols {
	s := &symbols{map[string]bool{}, map[string]int{}}
	for _, r := range reserved {
		s.taken[r] = true
	}
	return s
}

// unique returns the name, or else the name with the lowest number after it
// that makes it new: _2, _3 and so on.
func (s *symbols) unique(name string) string {
	free := name
	for n := max(2, s.next[name]); s.taken[free]; n++ {
		free = name + "_" + strconv.Itoa(n)
		s.next[name] = n + 1
	}
	s.taken[free] = true
	return free
}
