// Package chart draws line charts, as standalone SVG and as text for terminals.
// Equal charts give equal output.
package chart

import "math"

// A Chart shows one or more lines over a common axis. Drawing does not modify it,
// so it is safe for concurrent use.
type Chart struct {
	Title  string
	Note   string // a line below the chart
	X, Y   Axis
	Series []Series
	Bands  []Band

	// Width and Height are the size of the SVG in pixels; 0 means 800 and 360. Text
	// keeps its size, so a chart for a narrow screen needs a smaller Width.
	Width, Height int
}

// An Axis describes the values along it. It starts at 0, or at the least value if
// that is negative.
type Axis struct {
	Label string
	Unit  Unit
	Max   float64 // the end of the axis; 0 means the largest value
}

// A Unit says how the values of an axis are written.
type Unit uint8

const (
	Number  Unit = iota // 1,500 as 1.5k
	Seconds             // 90 as 1m30s
)

// A Series is a line. Its points are in order of X; a value that is not finite
// interrupts the line.
type Series struct {
	Name   string
	Points []Point
}

// A Point is a value of a series.
type Point struct{ X, Y float64 }

// A Band marks a range of X.
type Band struct {
	From, To float64
	Label    string
}

// finite reports whether a point can be drawn.
func (p Point) finite() bool {
	return !math.IsNaN(p.X) && !math.IsInf(p.X, 0) && !math.IsNaN(p.Y) && !math.IsInf(p.Y, 0)
}

// A span is the range of an axis.
type span struct{ min, max float64 }

// at returns the position of a value in the span, from 0 to 1.
func (s span) at(v float64) float64 { return (v - s.min) / (s.max - s.min) }

// spans returns the ranges of the axes: they include all points and bands, and are
// at least 1 in each direction that has none.
func (c *Chart) spans() (x, y span) {
	for _, s := range c.Series {
		for _, p := range s.Points {
			if p.finite() {
				x.add(p.X)
				y.add(p.Y)
			}
		}
	}
	for _, b := range c.Bands {
		x.add(b.From)
		x.add(b.To)
	}
	x.end(c.X.Max)
	y.end(c.Y.Max)
	return x, y
}

func (s *span) add(v float64) {
	s.min, s.max = min(s.min, v), max(s.max, v)
}

func (s *span) end(limit float64) {
	if limit > s.min {
		s.max = limit
	}
	if s.max <= s.min {
		s.max = s.min + 1
	}
}
