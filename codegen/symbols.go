package codegen

import "strconv"

// symbols makes unique names.
type symbols struct {
	used map[string]bool
	next map[string]int // the suffix to try next for a name
}

func newSymbols(reserved ...string) *symbols {
	s := &symbols{map[string]bool{}, map[string]int{}}
	for _, r := range reserved {
		s.used[r] = true
	}
	return s
}

// unique returns name, with the lowest suffix _2, _3 and so on that makes it unique
// if needed.
func (s *symbols) unique(name string) string {
	free := name
	for n := max(2, s.next[name]); s.used[free]; n++ {
		free = name + "_" + strconv.Itoa(n)
		s.next[name] = n + 1
	}
	s.used[free] = true
	return free
}
