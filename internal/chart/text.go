package chart

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// blocks are the heights of a cell, in eighths.
var blocks = []rune(" ▁▂▃▄▅▆▇█")

// The least size of a text.
const (
	leastColumns = 30
	leastRows    = 3
)

// Text returns the chart for a terminal with a number of columns. Each series has
// its own rows, on the same scale, so that no colors are needed. A column shows the
// largest value of its points.
func (c *Chart) Text(columns, rows int) string {
	columns, rows = max(columns, leastColumns), max(rows, leastRows)
	x, y := c.spans()
	y.min = min(y.min, 0)
	top := c.Y.Unit.Format(y.max)
	margin := 0
	for _, label := range []string{top, c.Y.Unit.Format(y.min), c.Y.Unit.Format((y.min + y.max) / 2)} {
		margin = max(margin, utf8.RuneCountInString(label))
	}
	width := columns - margin - 2
	var b strings.Builder
	line := func(parts ...string) {
		b.WriteString(strings.TrimRight(printable(strings.Join(parts, "")), " ") + "\n")
	}
	if c.Title != "" {
		line(c.Title)
	}
	for _, s := range c.Series {
		if len(c.Series) > 1 {
			line(s.Name)
		}
		values := s.columns(x, width)
		for row := range rows {
			label := ""
			switch {
			case row == 0:
				label = top
			case rows >= 5 && rows%2 == 0 && row == rows/2:
				label = c.Y.Unit.Format((y.min + y.max) / 2)
			}
			var cells strings.Builder
			for _, v := range values {
				cells.WriteRune(cell(y.at(v)*float64(rows) - float64(rows-1-row)))
			}
			line(pad(label, margin), " │", cells.String())
		}
		line(pad(c.Y.Unit.Format(y.min), margin), " ┼", c.baseline(x, width))
	}
	line(strings.Repeat(" ", margin+2), c.tickLine(x, width))
	var legend []string
	if c.Y.Label != "" {
		legend = append(legend, c.Y.Label)
	}
	seen := map[string]bool{}
	for _, band := range c.Bands {
		if !seen[band.Label] {
			legend = append(legend, "━ "+band.Label)
		}
		seen[band.Label] = true
	}
	if len(legend) > 0 {
		line(strings.Join(legend, "   "))
	}
	if c.Note != "" {
		line(c.Note)
	}
	return b.String()
}

// cell returns the block for a height in rows, in which 1 fills it. A value above 0 is
// always visible in the lowest row.
func cell(height float64) rune {
	if math.IsNaN(height) || height <= 0 {
		return ' '
	}
	return blocks[min(8, int(math.Ceil(height*8-1e-9)))]
}

// columns returns the largest value in each column. Between two points more than a
// column apart, it is the value on the line between them.
func (s Series) columns(x span, width int) []float64 {
	values := make([]float64, width)
	for i := range values {
		values[i] = math.NaN()
	}
	set := func(column int, v float64) {
		if column == width && column > 0 {
			column--
		}
		if column >= 0 && column < width && !(v <= values[column]) {
			values[column] = v
		}
	}
	at := func(p Point) int { return int(math.Floor(x.at(p.X) * float64(width))) }
	for i, p := range s.Points {
		if !p.finite() {
			continue
		}
		set(at(p), p.Y)
		if i == 0 || !s.Points[i-1].finite() {
			continue
		}
		last := s.Points[i-1]
		for column := max(at(last)+1, 0); column < min(at(p), width); column++ {
			middle := x.min + (float64(column)+0.5)/float64(width)*(x.max-x.min)
			set(column, last.Y+(p.Y-last.Y)*(middle-last.X)/(p.X-last.X))
		}
	}
	return values
}

// baseline returns the axis of X, on which bands are heavy.
func (c *Chart) baseline(x span, width int) string {
	line := []rune(strings.Repeat("─", width))
	for _, b := range c.Bands {
		from, to := x.at(b.From)*float64(width), x.at(b.To)*float64(width)
		for i := max(0, int(from)); i < min(width, int(math.Ceil(to))); i++ {
			line[i] = '━'
		}
	}
	return string(line)
}

// tickLine returns the labels below the axis of X.
func (c *Chart) tickLine(x span, width int) string {
	line := []rune(strings.Repeat(" ", width+2))
	free := 0
	for _, v := range c.X.Unit.ticks(x, max(2, width/12)) {
		label := []rune(c.X.Unit.Format(v))
		at := int(math.Round(x.at(v) * float64(width-1)))
		at = max(0, min(at-len(label)/2, len(line)-len(label)))
		if at < free {
			continue
		}
		copy(line[at:], label)
		free = at + len(label) + 1
	}
	text := strings.TrimRight(string(line), " ")
	if c.X.Label != "" {
		text += "  " + c.X.Label
	}
	return text
}

func pad(label string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(label))) + label
}

// printable replaces characters that a terminal would interpret.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}
