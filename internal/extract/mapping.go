package extract

import (
	"sort"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// A mapping is a text extracted from a file, with the positions of its parts in the
// file.
type mapping struct {
	src     *schema.Source
	text    strings.Builder
	parts   []part
	escaped bool // the parts are in C literals
}

// A part is n bytes of the text, which correspond to the bytes of the file at offset from:
// byte by byte if exact, otherwise as a whole.
type part struct {
	to, n     int
	from, end int
	exact     bool
	piece     int // literal of the part; -1 if none
}

// copy adds a part that is identical in the file.
func (m *mapping) copy(from, end, piece int) { m.add(m.src.Text[from:end], from, end, piece) }

// add adds text for a range of the file.
func (m *mapping) add(text string, from, end, piece int) {
	exact := text == m.src.Text[from:end]
	to := m.text.Len()
	m.text.WriteString(text)
	if n := len(m.parts); n > 0 && exact {
		if last := &m.parts[n-1]; last.exact && last.piece == piece && last.end == from {
			last.n += len(text)
			last.end = end
			return
		}
	}
	if len(text) > 0 {
		m.parts = append(m.parts, part{to, len(text), from, end, exact, piece})
	}
}

// find returns the index of the part that contains an offset of the text before its end.
func (m *mapping) find(offset int) int {
	return sort.Search(len(m.parts), func(i int) bool { return m.parts[i].to > offset }) - 1
}

// span maps a range of the text to the file.
func (m *mapping) span(start, end int) schema.Span {
	if len(m.parts) == 0 {
		return schema.Span{Source: m.src}
	}
	s := schema.Span{Source: m.src, Start: m.before(start), End: m.after(end)}
	if start == end {
		s.End = s.Start
	}
	if s.End < s.Start { // a macro that is defined elsewhere
		s.End = s.Start
	}
	return s
}

// before returns the start in the file of the text from an offset on.
func (m *mapping) before(offset int) int {
	if offset >= m.text.Len() {
		return m.after(offset)
	}
	p := m.parts[m.find(offset)]
	if p.exact {
		return p.from + offset - p.to
	}
	return p.from
}

// after returns the end in the file of the text up to an offset.
func (m *mapping) after(offset int) int {
	if offset == 0 {
		return m.parts[0].from
	}
	p := m.parts[m.find(min(offset, m.text.Len())-1)]
	if p.exact {
		return p.from + offset - p.to
	}
	return p.end
}

// exact maps a range of the text to the file if it corresponds to one range of one literal.
func (m *mapping) exact(start, end int) (schema.Span, bool) {
	if len(m.parts) == 0 {
		return schema.Span{}, false
	}
	first := m.find(min(start, m.text.Len()-1))
	last := first
	if end > start {
		last = m.find(end - 1)
	}
	piece := m.parts[first].piece
	for i := first; i <= last; i++ {
		p := &m.parts[i]
		if p.piece != piece || p.piece < 0 || i > first && p.from != m.parts[i-1].end {
			return schema.Span{}, false
		}
	}
	if p := &m.parts[first]; !p.exact && start != p.to && start != p.to+p.n {
		return schema.Span{}, false
	}
	if p := &m.parts[last]; end > start && !p.exact && end != p.to+p.n {
		return schema.Span{}, false
	}
	at := m.span(start, end)
	if start > 0 {
		// A numeric escape would absorb digits that follow it.
		before := m.parts[m.find(start-1)]
		if escape := m.src.Text[before.from:before.end]; !before.exact && before.end == at.Start && strings.IndexAny(escape, "x01234567uU") == 1 {
			return schema.Span{}, false
		}
	}
	return at, true
}

// slice adds the parts of a range of another mapping.
func (m *mapping) slice(other *mapping, start, end int) {
	for i := other.find(start); start < end; i++ {
		p := other.parts[i]
		stop := min(end, p.to+p.n)
		from, to := p.from, p.end
		if p.exact {
			from, to = p.from+start-p.to, p.from+stop-p.to
		}
		m.add(other.text.String()[start:stop], from, to, p.piece)
		start = stop
	}
}
