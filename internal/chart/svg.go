package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"
)

// style has a palette for light and one for dark screens; paper is light. Lines
// also differ in their dashes, for prints without color and for color-blind
// readers. The class names begin with sschart, so that the SVG can be embedded in a
// page with other styles.
const style = `.sschart{--bg:#fff;--fg:#1f2328;--dim:#59636e;--grid:#d1d9e0;--band:#818b981f;--c0:#0969da;--c1:#bc4c00;--c2:#1a7f37;--c3:#8250df;--c4:#bf3989;--c5:#4d2d00;font:12px system-ui,sans-serif}
@media screen and (prefers-color-scheme:dark){.sschart{--bg:#0d1117;--fg:#f0f6fc;--dim:#9198a1;--grid:#3d444d;--band:#9198a133;--c0:#58a6ff;--c1:#f0883e;--c2:#56d364;--c3:#bc8cff;--c4:#f778ba;--c5:#e3b341}}
.sschart text{fill:var(--fg)}.sschart .dim{fill:var(--dim)}.sschart .title{font-size:15px;font-weight:600}.sschart .grid{stroke:var(--grid);stroke-width:1}.sschart .band{fill:var(--band)}.sschart .line{fill:none;stroke-width:1.75;stroke-linejoin:round}
`

var dashes = []string{"", "7 3", "2 3", "10 3 2 3", "4 2", "1 2"}

// Sizes in pixels.
const (
	defaultWidth, defaultHeight = 800, 360
	leastWidth, leastHeight     = 240, 160

	margin    = 12
	lineSpace = 18
	charWidth = 6.6 // the mean, of 12px text
	left      = 64
	tickSpace = 80 // between ticks of X
)

// SVG returns the chart as an SVG document.
func (c *Chart) SVG() string {
	d := &drawing{chart: c, width: c.Width, height: c.Height}
	if d.width == 0 {
		d.width = defaultWidth
	}
	if d.height == 0 {
		d.height = defaultHeight
	}
	d.width, d.height = max(d.width, leastWidth), max(d.height, leastHeight)
	d.draw()
	return d.String()
}

// A drawing is an SVG under construction.
type drawing struct {
	strings.Builder
	chart         *Chart
	width, height int
	x, y          span

	// The area of the lines.
	top, bottom, right float64
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(d, format, args...) }

func (d *drawing) draw() {
	c := d.chart
	d.x, d.y = c.spans()
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" class="sschart" role="img" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" style="max-width:100%%;height:auto">`+"\n", d.width, d.height)
	d.printf("<title>%s</title>\n<style>%s</style>\n", escape(c.Title), style)
	d.printf(`<rect width="%d" height="%d" style="fill:var(--bg)"/>`+"\n", d.width, d.height)
	line := float64(margin)
	if c.Title != "" {
		line += lineSpace
		d.text(margin, line-4, `class="title"`, c.Title)
	}
	line = d.legend(line)
	if c.Y.Label != "" {
		line += lineSpace
		d.text(margin, line-4, `class="dim"`, c.Y.Label)
	}
	d.top = line + 8
	d.bottom = float64(d.height - margin - lineSpace)
	if c.X.Label != "" {
		d.bottom -= lineSpace
	}
	if c.Note != "" {
		d.bottom -= lineSpace
		d.text(margin, float64(d.height-margin), `class="dim"`, c.Note)
	}
	d.bottom = max(d.bottom, d.top+40)
	d.right = float64(d.width - margin - 8)
	d.axes()
	for i, s := range c.Series {
		d.printf(`<path class="line" style="stroke:var(--c%d)"%s d="%s"><title>%s</title></path>`+"\n",
			i%6, dash(i), d.path(s.Points), escape(s.Name))
	}
	d.WriteString("</svg>\n")
}

// px and py return the coordinates of a value.
func (d *drawing) px(x float64) float64 { return left + d.x.at(x)*(d.right-left) }
func (d *drawing) py(y float64) float64 {
	return d.bottom - min(max(d.y.at(y), 0), 1)*(d.bottom-d.top)
}

func (d *drawing) text(x, y float64, attributes, text string) {
	d.printf(`<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, attributes, escape(text))
}

// legend draws the names of the lines, if there are several, and returns where it
// ends.
func (d *drawing) legend(line float64) float64 {
	if len(d.chart.Series) < 2 {
		return line
	}
	x := float64(margin)
	line += lineSpace
	for i, s := range d.chart.Series {
		width := 34 + charWidth*float64(utf8.RuneCountInString(s.Name))
		if x > margin && x+width > float64(d.width-margin) {
			x = margin
			line += lineSpace
		}
		d.printf(`<path class="line" style="stroke:var(--c%d)"%s d="M%.1f %.1fh22"/>`+"\n", i%6, dash(i), x, line-8)
		d.text(x+28, line-4, "", s.Name)
		x += width + 14
	}
	return line
}

// axes draws the bands, the grid and its labels.
func (d *drawing) axes() {
	c := d.chart
	for _, b := range c.Bands {
		from, to := max(d.px(b.From), left), min(d.px(b.To), d.right)
		if to <= from {
			continue
		}
		d.printf(`<rect class="band" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", from, d.top, to-from, d.bottom-d.top)
		// A peak is often where the band begins, so its name goes at the end.
		d.text(max(to-4, left+charWidth*float64(utf8.RuneCountInString(b.Label))), d.top+13, `class="dim" text-anchor="end"`, b.Label)
	}
	for _, v := range c.Y.Unit.ticks(d.y, max(2, int(d.bottom-d.top)/40)) {
		d.printf(`<path class="grid" d="M%d %.1fH%.1f"/>`+"\n", left, d.py(v), d.right)
		d.text(left-6, d.py(v)+4, `class="dim" text-anchor="end"`, c.Y.Unit.Format(v))
	}
	for _, v := range c.X.Unit.ticks(d.x, max(2, int(d.right-left)/tickSpace)) {
		d.printf(`<path class="grid" d="M%.1f %.1fv5"/>`+"\n", d.px(v), d.bottom)
		d.text(d.px(v), d.bottom+lineSpace, `class="dim" text-anchor="middle"`, c.X.Unit.Format(v))
	}
	if c.X.Label != "" {
		d.text((left+d.right)/2, d.bottom+2*lineSpace-2, `class="dim" text-anchor="middle"`, c.X.Label)
	}
}

func dash(i int) string {
	if pattern := dashes[i%len(dashes)]; pattern != "" {
		return ` stroke-dasharray="` + pattern + `"`
	}
	return ""
}

// path returns the data of a line. Of the points on one pixel column it draws only
// the first, the lowest, the highest and the last.
func (d *drawing) path(points []Point) string {
	var b strings.Builder
	command := byte('M')
	emit := func(p Point) {
		fmt.Fprintf(&b, "%c%.1f %.1f", command, d.px(p.X), d.py(p.Y))
		command = 'L'
	}
	for i := 0; i < len(points); {
		if !points[i].finite() {
			command = 'M'
			i++
			continue
		}
		pixel, low, high, j := int(d.px(points[i].X)), i, i, i+1
		for ; j < len(points) && points[j].finite() && int(d.px(points[j].X)) == pixel; j++ {
			if points[j].Y < points[low].Y {
				low = j
			}
			if points[j].Y > points[high].Y {
				high = j
			}
		}
		last := -1
		for _, k := range []int{i, min(low, high), max(low, high), j - 1} {
			if k > last {
				emit(points[k])
				last = k
			}
		}
		i = j
	}
	return b.String()
}

// escape escapes a text for XML.
func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // writing to a Buffer never fails
	return b.String()
}
