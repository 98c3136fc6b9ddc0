package playground

import (
	"sort"

	"github.com/secure-streams/sspolicy/schema"
)

// offsets converts byte offsets of a source to UTF-16.
type offsets struct {
	source *schema.Source
	wide   []shift // the characters outside of ASCII
}

// A shift is the difference of offsets after a character.
type shift struct {
	end, by int // in bytes
}

func newOffsets(s *schema.Source) *offsets {
	o := &offsets{source: s}
	by := 0
	for i, c := range s.Text {
		if c < 0x80 {
			continue
		}
		bytes, units := len(string(c)), 1
		if c > 0xffff {
			units = 2
		}
		by += bytes - units
		o.wide = append(o.wide, shift{i + bytes, by})
	}
	return o
}

// utf16 translates an offset.
func (o *offsets) utf16(offset int) int {
	i := sort.Search(len(o.wide), func(i int) bool { return o.wide[i].end > offset })
	if i == 0 {
		return offset
	}
	return offset - o.wide[i-1].by
}
