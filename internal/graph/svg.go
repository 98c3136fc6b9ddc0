package graph

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

func isPrint(r rune) bool { return strconv.IsPrint(r) }

// styles are the rules of the style sheet: a selector, a property, and its values on
// light and dark backgrounds.
var styles = [][4]string{
	{".bg", "fill", "#ffffff", "#0d1117"},
	{"text", "fill", "#1f2328", "#e6edf3"},
	{".dim", "fill", "#59636e", "#9198a1"},
	{".group", "fill", "#f6f8fa", "#151b23"},
	{".group", "stroke", "#d1d9e0", "#3d444d"},
	{".rule", "stroke", "#d1d9e0", "#3d444d"},
	{".box", "fill", "#ffffff", "#0d1117"},
	{".halo", "stroke", "#ffffff", "#0d1117"},
	{":not(text).retry", "stroke", "#0969da", "#4493f8"},
	{":not(text).trust_stores", "stroke", "#1a7f37", "#3fb950"},
	{":not(text).auth", "stroke", "#8250df", "#ab7df8"},
	{":not(text).certs", "stroke", "#9a6700", "#d29922"},
	{":not(text).s", "stroke", "#bc4c00", "#db6d28"},
	{":not(text).bad", "stroke", "#cf222e", "#f85149"},
	{"text.bad", "fill", "#cf222e", "#f85149"},
	{"text.retry", "fill", "#0969da", "#4493f8"},
	{"text.trust_stores", "fill", "#1a7f37", "#3fb950"},
	{"text.auth", "fill", "#8250df", "#ab7df8"},
	{"text.certs", "fill", "#9a6700", "#d29922"},
}

// fixedStyles are the rules that do not depend on the background.
const fixedStyles = `text{font:12px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",Consolas,monospace}` +
	`.small{font-size:10px}.head{font:600 12px system-ui,sans-serif}.name{font-weight:600}` +
	`.line{fill:none;stroke-width:1.5;stroke-opacity:.75}.line.bad{stroke-width:2;stroke-opacity:1;stroke-dasharray:6 3}` +
	`.arrow{fill:none;stroke-width:1.5;stroke-linejoin:round}.box{stroke-width:1.5}.box.missing{stroke-dasharray:5 3}` +
	`.unused{opacity:.55}.halo{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}`

// styleSheet returns the style sheet of a picture.
func styleSheet() string {
	const root = ".sspolicy-graph "
	var b strings.Builder
	for rule := range strings.SplitSeq(strings.TrimSuffix(fixedStyles, "}"), "}") {
		b.WriteString(root + strings.ReplaceAll(rule, ",.", ","+root+".") + "}")
	}
	for i, background := range []string{"", "@media screen and (prefers-color-scheme:dark){"} {
		b.WriteString(background)
		for _, s := range styles {
			fmt.Fprintf(&b, "%s%s{%s:%s}", root, s[0], s[1], s[2+i])
		}
	}
	b.WriteString("}")
	return b.String()
}

// class returns the CSS class of a kind of nodes.
func class(kind schema.Section) string { return string(kind) }

// lineClass returns the CSS class of an edge.
func lineClass(e *Edge) string {
	if e.Problem != "" {
		return "bad"
	}
	return class(e.To.Kind)
}

// SVG returns the graph as an SVG document, as a file or for embedding in an HTML
// page. It follows the color scheme of the reader, and uses no other resources.
func (g *Graph) SVG() string {
	l := newLayout(g)
	s := &svgWriter{}
	l.width = max(l.width, 420) // of the legend
	legend := l.legend()
	height := l.height
	if len(legend) > 0 {
		height += 24
	}
	s.printf(`<svg xmlns="http://www.w3.org/2000/svg" class="sspolicy-graph" role="img" viewBox="0 0 %.0f %.0f" width="%[1]v" height="%.0[2]f"`, l.width, height)
	s.printf(` aria-label="%s">`, escape("Policy "+g.Title))
	s.printf("\n<title>%s</title>\n<desc>%s</desc>\n<style>%s</style>\n", escape("Policy "+g.Title), escape(g.description()), styleSheet())
	s.printf(`<rect class="bg" width="100%%" height="100%%"/>` + "\n")
	for c, title := range []string{"Streamtypes, by endpoint", "Retry, trust, auth", "Certificates"} {
		if l.w[c] > 0 {
			s.text(l.x[c], margin+12, "head dim", title)
		}
	}
	for _, n := range l.lines {
		s.line(l, n)
	}
	for _, i := range l.columns[streamColumn] {
		s.group(l, i)
	}
	for c := schemeColumn; c < numColumns; c++ {
		for _, i := range l.columns[c] {
			if i.node != nil {
				s.node(i)
			}
		}
	}
	for _, n := range l.lines {
		s.label(l, n)
	}
	s.legend(l, legend)
	s.printf("</svg>\n")
	return s.String()
}

// description is the graph in words.
func (g *Graph) description() string {
	var b strings.Builder
	count := map[schema.Section]int{}
	for _, n := range g.Nodes {
		if n.Problem != "not defined" {
			count[n.Kind]++
		}
	}
	for i, s := range sections {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s", quantity(count[s.kind], s.kind.Noun()))
	}
	b.WriteString(".")
	for _, e := range g.Broken() {
		fmt.Fprintf(&b, " %s %s: %s %s: %s.", e.From.Kind.Noun(), schema.QuoteName(e.From.Name), e.Key, schema.QuoteName(e.To.Name), e.Problem)
	}
	return b.String()
}

func quantity(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// escape escapes a text for XML. Characters that XML cannot hold become U+FFFD.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(plain(s)))
	return b.String()
}

type svgWriter struct{ strings.Builder }

func (s *svgWriter) printf(format string, args ...any) { fmt.Fprintf(s, format, args...) }

func (s *svgWriter) text(x, y float64, class, text string) {
	s.printf(`<text x="%.1f" y="%.1f" class="%s">%s</text>`+"\n", x, y, class, escape(text))
}

// group draws the streamtypes of an endpoint.
func (s *svgWriter) group(l *layout, i *item) {
	g := i.group
	s.printf(`<g><title>%s</title><rect class="group" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="6"/>`+"\n", escape(strings.TrimSpace(g.Name+" "+g.Detail)), i.x, i.y, i.w, i.h)
	s.row(i.box, 17, "name", g.Name, g.Detail, l.groupTags[g])
	s.printf(`<path class="rule" d="M%.1f %.1fh%.1f"/></g>`+"\n", i.x, i.y+groupTitle-2, i.w)
	for _, n := range i.rows {
		row := l.nodes[n]
		s.open(n)
		style := ""
		if n.Problem != "" {
			style = "bad"
		}
		s.row(row.box, 15, style, n.Name, n.Detail, l.tags[n])
		s.printf("</g>\n")
	}
}

// row writes the texts in a row: a name, the targets of some edges, and a detail.
func (s *svgWriter) row(b box, baseline float64, style, name, detail string, tags []*Edge) {
	detail = fit(detail, b.w/3, smallWidth)
	right := b.x + b.w - padding
	s.printf(`<text x="%.1f" y="%.1f" class="small dim" text-anchor="end">%s</text>`+"\n", right, b.y+baseline, escape(detail))
	right -= max(textWidth(detail, smallWidth), leastDetail)
	for _, e := range slices.Backward(tags[:min(len(tags), mostTags)]) {
		right -= tagWidth
		s.text(right, b.y+baseline, "small "+lineClass(e), fit(e.To.Name, tagWidth-padding, smallWidth))
	}
	s.text(b.x+padding, b.y+baseline, style, fit(name, right-b.x-2*padding, charWidth))
}

// open opens the element of a node.
func (s *svgWriter) open(n *Node) {
	style := "node"
	if n.Unused {
		style += " unused"
	}
	title := n.Kind.Noun() + " " + n.Name
	for _, more := range []string{n.Detail, n.Problem} {
		if more != "" && more != n.Kind.Noun() {
			title += ", " + more
		}
	}
	if n.Unused {
		title += ", unused"
	}
	at := n.Span.Position()
	s.printf(`<g class="%s" data-at="%d:%d"><title>%s</title>`, style, at.Line, at.Column, escape(title))
}

// node draws a node that is not a streamtype.
func (s *svgWriter) node(i *item) {
	n := i.node
	s.open(n)
	style, bad := "box "+class(n.Kind), ""
	if n.Problem != "" {
		style, bad = "box bad missing", " bad"
	}
	s.printf(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="4"/>`+"\n", style, i.x, i.y, i.w, i.h)
	name, detail := n.label()
	s.text(i.x+padding, i.y+17, "name"+bad, fit(name, i.w-2*padding, charWidth))
	s.text(i.x+padding, i.y+32, "small dim"+bad, fit(detail, i.w-2*padding, smallWidth))
	s.printf("</g>\n")
}

// ends returns the points where a line begins and ends, and whether it is an arc left of
// the streamtypes.
func (l *layout) ends(n *line) (x1, y1, x2, y2 float64, arc bool) {
	from, to := l.items(n)
	a, b := columnOf(n.From.Kind), columnOf(n.To.Kind)
	x1, y1, x2, y2 = from.x+from.w, from.middle(), to.x, to.middle()
	switch {
	case n.from != nil:
		y1 = 0
		for _, row := range n.from {
			y1 += l.nodes[row].middle() / float64(len(n.from))
		}
	case n.group != nil:
		y1 = from.y + groupTitle/2
	}
	switch {
	case a == b:
		return from.x, y1, to.x, y2, true
	case a > b:
		x1, x2 = from.x, to.x+to.w
	}
	return x1, y1, x2, y2, false
}

// line draws a line and its arrow.
func (s *svgWriter) line(l *layout, n *line) {
	style := lineClass(n.Edge)
	x1, y1, x2, y2, arc := l.ends(n)
	from := n.From.Name
	switch {
	case n.from != nil:
		from = fmt.Sprintf("%d streamtypes of %s", len(n.from), n.group.Name)
	case n.group != nil:
		from = n.group.Name
	}
	title := from + ": " + n.Key + " " + n.To.Name
	if n.Problem != "" {
		title += ", " + n.Problem
	}
	s.printf(`<g><title>%s</title><path class="line %s" d="M%.1f %.1f`, escape(title), style, x1, y1)
	direction := 1.0
	switch {
	case arc:
		out := 12 + min(arcGap-14, abs(y2-y1)/6)
		s.printf("C%.1f %.1f %.1f %.1f %.1f %.1f", x1-out, y1, x2-out, y2, x2, y2)
	case n.via != nil:
		left, right := n.via.x, n.via.x+n.via.w
		y := n.via.middle()
		s.curve(x1, y1, left, y)
		s.printf("H%.1f", right)
		s.curve(right, y, x2, y2)
	default:
		s.curve(x1, y1, x2, y2)
		if x2 < x1 {
			direction = -1
		}
	}
	s.printf(`"/><path class="arrow %s" d="M%.1f %.1fl%.0f 4l%.0f 4"/></g>`+"\n", style, x2-6*direction, y2-4, 6*direction, -6*direction)
}

// curve continues a path to the right or left.
func (s *svgWriter) curve(x1, y1, x2, y2 float64) {
	mid := (x1 + x2) / 2
	s.printf("C%.1f %.1f %.1f %.1f %.1f %.1f", mid, y1, mid, y2, x2, y2)
}

func abs(x float64) float64 { return max(x, -x) }

// label draws the problem of a line, unless its node shows it.
func (s *svgWriter) label(l *layout, n *line) {
	if n.Problem == "" || n.Problem == n.To.Problem {
		return
	}
	x1, y1, x2, y2, arc := l.ends(n)
	if arc {
		return // the title has it
	}
	text := fit(n.Problem, columnGap-8, smallWidth)
	s.printf(`<text class="small bad halo" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`+"\n", (x1+x2)/2, (y1+y2)/2+3, escape(text))
}

// legend returns the kinds of lines.
func (l *layout) legend() (entries [][2]string) {
	seen := map[[2]string]bool{}
	for _, n := range l.lines {
		e := [2]string{class(n.To.Kind), n.Key}
		if n.Key == "stack" {
			e[1] = "trusts"
		}
		if !seen[e] {
			seen[e] = true
			entries = append(entries, e)
		}
	}
	if len(l.graph.Broken()) > 0 {
		entries = append(entries, [2]string{"bad", "broken"})
	}
	return entries
}

// legend draws the legend below the graph.
func (s *svgWriter) legend(l *layout, entries [][2]string) {
	x, y := float64(margin), l.height+4
	for _, e := range entries {
		s.printf(`<path class="line %s" d="M%.1f %.1fh18"/>`+"\n", e[0], x, y)
		s.text(x+24, y+4, "small dim", e[1])
		x += 40 + textWidth(e[1], smallWidth)
	}
}
