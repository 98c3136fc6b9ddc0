package schema

import "strings"

// nearest returns the key of a section that a wrong key was probably meant to
// be, or "".
func nearest(s Section, name string) string {
	for _, k := range Keys(s) {
		for _, alias := range k.Aliases {
			if alias == name {
				return k.Name
			}
		}
	}
	names := make([]string, 0, len(Keys(s)))
	for _, k := range Keys(s) {
		names = append(names, k.Name)
	}
	return Nearest(name, names)
}

// Nearest returns the one of names that name is most likely a misspelling of,
// or "" if none is near enough: of those that differ by the fewest letters put
// in, left out, changed or swapped, the first.
func Nearest(name string, names []string) string {
	if len(name) > 64 {
		return ""
	}
	fold := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r == '-' || r == ' ' {
				return '_'
			}
			return r
		}, strings.ToLower(s))
	}
	best, least := "", max(1, len(name)/3)+1
	folded := fold(name)
	for _, n := range names {
		if d := distance(folded, fold(n), least); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance returns the optimal string alignment distance of two strings, by
// bytes, or limit if it is no less.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
