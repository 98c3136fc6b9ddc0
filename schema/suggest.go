package schema

import (
	"slices"
	"strings"
)

// nearest returns the key of a section that name probably misspells, or "", and
// whether no other key is at the same distance.
func nearest(s Section, name string) (key string, only bool) {
	for _, k := range Keys(s) {
		if slices.Contains(k.Aliases, name) {
			return k.Name, true
		}
	}
	names := make([]string, 0, len(Keys(s)))
	for _, k := range Keys(s) {
		names = append(names, k.Name)
	}
	best := nearestAll(name, names)
	if len(best) == 0 {
		return "", false
	}
	return best[0], len(best) == 1
}

// Nearest returns the first of names with the smallest edit distance from name, or
// "" if all are too far away to be a misspelling.
func Nearest(name string, names []string) string {
	if best := nearestAll(name, names); len(best) > 0 {
		return best[0]
	}
	return ""
}

// nearestAll returns all names with the smallest edit distance.
func nearestAll(name string, names []string) []string {
	if len(name) > 64 {
		return nil
	}
	var best []string
	least := max(1, len(name)/3) + 1
	folded := fold(name)
	for _, n := range names {
		switch d := distance(folded, fold(n), least+1); {
		case d < least:
			best, least = []string{n}, d
		case d == least && len(best) > 0:
			best = append(best, n)
		}
	}
	return best
}

// misspelt reports whether name is key with one mistake in at least four letters.
func misspelt(name, key string) bool {
	return len(name) >= 4 && distance(fold(name), fold(key), 2) < 2
}

// fold removes the differences that most misspellings consist of.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return '_'
		}
		return r
	}, strings.ToLower(name))
}

// distance returns the smaller of limit and the optimal string alignment distance
// of two strings, in bytes.
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
