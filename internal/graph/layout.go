package graph

import (
	"cmp"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/secure-streams/sspolicy/schema"
)

// Sizes in pixels. The font is monospaced, so the width of a text is known without
// it.
const (
	margin     = 16
	heading    = 34 // above the columns
	rowHeight  = 22 // of a streamtype in its group
	groupTitle = 26
	groupGap   = 14
	boxHeight  = 40
	boxGap     = 12
	columnGap  = 120
	arcGap     = 44 // left of the streamtypes, for edges between them

	fontSize   = 12
	charWidth  = 7.25 // of a name
	smallWidth = 6.1  // of a detail
	padding    = 10
	widest     = 300 // of a column
	narrowest  = 150
	tagWidth   = 84 // of the name of a target in a row
	mostTags   = 3  // in a row

	// bundled is the number of streamtypes above which the references of a group to one
	// target are one line, and rows name their targets.
	bundled = 25

	// spread is the fraction of the height of the streamtypes that the other
	// columns fill.
	spread = 0.7
)

// columns of the layout.
const (
	streamColumn = iota
	schemeColumn // backoff schemes, trust stores, auth schemes
	certColumn
	numColumns
)

func columnOf(kind schema.Section) int {
	switch kind {
	case schema.Streams:
		return streamColumn
	case schema.Certs:
		return certColumn
	}
	return schemeColumn
}

// A box is a rectangle.
type box struct{ x, y, w, h float64 }

func (b *box) middle() float64 { return b.y + b.h/2 }

// An item is an element of a column: a group, a node, or the point where an edge
// passes.
type item struct {
	box
	group *Group
	rows  []*Node // of the group
	node  *Node

	in, out []*item // neighbors, one for each line
	order   float64 // for sorting
}

// A line is a drawn edge: an edge, or those of a group to one node.
type line struct {
	*Edge
	group *Group  // of the edges, if there are several
	from  []*Node // the nodes of the group with the edge; nil for all
	via   *item   // where the line passes a column
}

// A layout holds the positions of a graph.
type layout struct {
	graph         *Graph
	lines         []*line
	nodes         map[*Node]*item
	groups        map[*Group]*item
	columns       [numColumns][]*item
	tags          map[*Node][]*Edge  // what rows name, since their lines are bundled
	groupTags     map[*Group][]*Edge // the same for all rows of a group
	gaps          [numColumns]float64
	x, w          [numColumns]float64
	width, height float64
}

// newLayout lays a graph out in layers: streamtypes, the definitions that they
// refer to, and certificates. The order in the columns is the best one that
// barycenters find for few crossings (Sugiyama, Tagawa and Toda 1981); positions
// are as near to the neighbors as the order permits.
func newLayout(g *Graph) *layout {
	l := &layout{graph: g, nodes: map[*Node]*item{}, groups: map[*Group]*item{}, tags: map[*Node][]*Edge{}, groupTags: map[*Group][]*Edge{}}
	for _, n := range g.Nodes {
		l.nodes[n] = &item{node: n, box: box{h: boxHeight}}
		if c := columnOf(n.Kind); c != streamColumn {
			l.columns[c] = append(l.columns[c], l.nodes[n])
		}
	}
	for _, gr := range g.Groups {
		i := &item{group: gr, rows: slices.Clone(gr.Nodes), box: box{h: groupTitle + rowHeight*float64(len(gr.Nodes)) + 6}}
		l.groups[gr] = i
		l.columns[streamColumn] = append(l.columns[streamColumn], i)
	}
	l.draw()
	for _, tags := range l.tags {
		slices.SortStableFunc(tags, func(a, b *Edge) int { return strings.Compare(b.Key, a.Key) }) // so that kinds align
	}
	l.space()
	l.sort()
	l.place()
	return l
}

// draw makes the lines. A reference that all streamtypes of a group share becomes
// one line.
func (l *layout) draw() {
	type bundle struct {
		group        *Group
		to           *Node
		key, problem string
	}
	groupOf := map[*Node]*Group{}
	for _, g := range l.graph.Groups {
		for _, n := range g.Nodes {
			groupOf[n] = g
		}
	}
	bundles := map[bundle][]*Node{}
	bundleOf := func(e *Edge) bundle { return bundle{groupOf[e.From], e.To, e.Key, e.Problem} }
	for _, e := range l.graph.Edges {
		bundles[bundleOf(e)] = append(bundles[bundleOf(e)], e.From)
	}
	many := len(groupOf) > bundled
	drawn := map[bundle]bool{}
	for _, e := range l.graph.Edges {
		n := &line{Edge: e}
		if b := bundleOf(e); b.group != nil && columnOf(e.To.Kind) != streamColumn {
			nodes := bundles[b]
			shared := len(nodes) == len(b.group.Nodes)
			if many && (!shared || len(nodes) == 1) {
				l.tags[e.From] = append(l.tags[e.From], e)
			}
			if len(nodes) > 1 && (shared || many) {
				if drawn[b] {
					continue
				}
				drawn[b] = true
				switch n.group = b.group; {
				case !shared:
					n.from = nodes
				case many:
					l.groupTags[b.group] = append(l.groupTags[b.group], e)
				}
			}
		}
		l.lines = append(l.lines, n)
		from, to := l.items(n)
		switch columnOf(e.To.Kind) - columnOf(e.From.Kind) {
		case 1:
			connect(from, to)
		case 2:
			n.via = &item{}
			l.columns[schemeColumn] = append(l.columns[schemeColumn], n.via)
			connect(from, n.via)
			connect(n.via, to)
		case -1:
			connect(to, from)
		}
	}
}

// items returns what a line connects.
func (l *layout) items(n *line) (from, to *item) {
	if n.group != nil {
		return l.groups[n.group], l.nodes[n.To]
	}
	return l.nodes[n.From], l.nodes[n.To]
}

func connect(from, to *item) {
	from.out = append(from.out, to)
	to.in = append(to.in, from)
}

// space sets the gaps in the columns. Boxes next to many streamtypes are spread, so
// that lines are less steep.
func (l *layout) space() {
	l.gaps = [...]float64{groupGap, boxGap, boxGap}
	height := func(c int) float64 {
		sum := 0.0
		for _, i := range l.columns[c] {
			sum += i.h
		}
		return sum
	}
	most := spread * (height(streamColumn) + groupGap*float64(len(l.columns[streamColumn])))
	for c := schemeColumn; c < numColumns; c++ {
		if n := float64(len(l.columns[c])); n > 0 {
			l.gaps[c] = max(boxGap, (most-height(c))/n)
		}
	}
}

// sort orders the columns.
func (l *layout) sort() {
	l.stack()
	best, least := l.snapshot(), l.crossings()
	for range 6 {
		for c := schemeColumn; c < numColumns; c++ {
			order(l.columns[c], func(i *item) []*item { return i.in })
			l.stack()
		}
		for c := schemeColumn; c >= streamColumn; c-- {
			if c == streamColumn {
				for _, i := range l.columns[c] {
					slices.SortStableFunc(i.rows, func(a, b *Node) int {
						return cmp.Compare(barycenter(l.nodes[a], l.nodes[a].out), barycenter(l.nodes[b], l.nodes[b].out))
					})
				}
				l.stack()
			}
			order(l.columns[c], func(i *item) []*item { return l.targets(i) })
			l.stack()
		}
		if n := l.crossings(); n < least {
			best, least = l.snapshot(), n
		}
	}
	l.restore(best)
}

// targets returns the neighbors of an item to the right: of a group, those of its nodes
// too.
func (l *layout) targets(i *item) []*item {
	all := i.out
	if i.group != nil {
		all = slices.Clip(all)
		for _, n := range i.rows {
			all = append(all, l.nodes[n].out...)
		}
	}
	return all
}

// order sorts a column by the neighbors.
func order(column []*item, neighbors func(*item) []*item) {
	for _, i := range column {
		i.order = barycenter(i, neighbors(i))
	}
	slices.SortStableFunc(column, func(a, b *item) int { return cmp.Compare(a.order, b.order) })
}

// barycenter returns the mean place of the neighbors, or that of the item if it has none.
func barycenter(i *item, neighbors []*item) float64 {
	if len(neighbors) == 0 {
		return i.middle()
	}
	sum := 0.0
	for _, n := range neighbors {
		sum += n.middle()
	}
	return sum / float64(len(neighbors))
}

// An ordering is the order of everything.
type ordering struct {
	columns [numColumns][]*item
	rows    map[*item][]*Node
}

func (l *layout) snapshot() ordering {
	o := ordering{rows: map[*item][]*Node{}}
	for c := range l.columns {
		o.columns[c] = slices.Clone(l.columns[c])
	}
	for _, i := range l.groups {
		o.rows[i] = slices.Clone(i.rows)
	}
	return o
}

func (l *layout) restore(o ordering) {
	l.columns = o.columns
	for i, rows := range o.rows {
		i.rows = rows
	}
	l.stack()
}

// stack places the items of each column one below the other.
func (l *layout) stack() {
	for c, column := range l.columns {
		y := 0.0
		for _, i := range column {
			i.y = y
			if y += i.h + l.gaps[c]; i.group != nil {
				for k, n := range i.rows {
					row := l.nodes[n]
					row.h, row.y = rowHeight, i.y+groupTitle+rowHeight*float64(k)
				}
			}
		}
	}
}

// crossings counts the pairs of lines that cross between two columns.
func (l *layout) crossings() int {
	total := 0
	for c := range numColumns - 1 {
		var pairs [][2]float64
		add := func(i *item) {
			for _, to := range i.out {
				pairs = append(pairs, [2]float64{i.middle(), to.middle()})
			}
		}
		for _, i := range l.columns[c] {
			add(i)
			if i.group != nil {
				for _, n := range i.rows {
					add(l.nodes[n])
				}
			}
		}
		slices.SortFunc(pairs, func(a, b [2]float64) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
		ends := make([]float64, len(pairs))
		for i, p := range pairs {
			ends[i] = p[1]
		}
		total += inversions(ends)
	}
	return total
}

// inversions sorts list, and returns how many pairs were in the wrong order.
func inversions(list []float64) int {
	if len(list) < 2 {
		return 0
	}
	left, right := slices.Clone(list[:len(list)/2]), slices.Clone(list[len(list)/2:])
	n := inversions(left) + inversions(right)
	for k := range list {
		if len(right) == 0 || len(left) > 0 && left[0] <= right[0] {
			list[k], left = left[0], left[1:]
		} else {
			list[k], right = right[0], right[1:]
			n += len(left)
		}
	}
	return n
}

// place sets all coordinates.
func (l *layout) place() {
	l.stack()
	for c := schemeColumn; c < numColumns; c++ {
		settle(l.columns[c], l.gaps[c])
	}
	top := 0.0
	for _, column := range l.columns {
		for _, i := range column {
			top = min(top, i.y)
		}
	}
	for _, e := range l.lines {
		if columnOf(e.From.Kind) == streamColumn && columnOf(e.To.Kind) == streamColumn {
			l.x[streamColumn] = arcGap
		}
	}
	x := margin + l.x[streamColumn]
	for c, column := range l.columns {
		if len(column) == 0 {
			continue
		}
		l.x[c], l.w[c] = x, l.columnWidth(column)
		for _, i := range column {
			i.x, i.w, i.y = x, l.w[c], i.y-top+heading+margin
			l.height = max(l.height, i.y+i.h)
			if i.group != nil {
				for _, n := range i.rows {
					row := l.nodes[n]
					row.x, row.w, row.y = i.x, i.w, row.y-top+heading+margin
				}
			}
		}
		l.width = x + l.w[c] + margin
		x += l.w[c] + columnGap
	}
	l.height += margin
}

// settle positions the items of a column, in their order, as near as possible to
// their neighbors on the left. It merges items that are too near into blocks, each
// at the mean of the preferred positions of its items.
func settle(column []*item, gap float64) {
	type block struct {
		items    []*item
		sum      float64 // of the preferred positions of the top of the block
		size     float64
		wishes   float64
		position float64
	}
	var blocks []block
	for _, i := range column {
		b := block{items: []*item{i}, size: i.h + gap, position: i.y}
		if len(i.in) > 0 {
			b.position = barycenter(i, i.in) - i.h/2
			b.sum, b.wishes = b.position, 1
		}
		for len(blocks) > 0 {
			last := blocks[len(blocks)-1]
			if last.position+last.size <= b.position {
				break
			}
			b.items = append(last.items, b.items...)
			b.sum = last.sum + b.sum - last.size*b.wishes
			b.wishes += last.wishes
			b.size += last.size
			b.position = last.position
			if b.wishes > 0 {
				b.position = b.sum / b.wishes
			}
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	for _, b := range blocks {
		y := b.position
		for _, i := range b.items {
			i.y = y
			y += i.h + gap
		}
	}
}

// columnWidth returns the width for the texts in a column.
func (l *layout) columnWidth(column []*item) float64 {
	w, tags := float64(narrowest), 0
	for _, i := range column {
		switch {
		case i.group != nil:
			w = max(w, rowWidth(i.group.Name, i.group.Detail))
			tags = max(tags, len(l.groupTags[i.group]))
			for _, n := range i.rows {
				w = max(w, rowWidth(n.Name, n.Detail))
				tags = max(tags, len(l.tags[n]))
			}
		case i.node != nil:
			name, detail := i.node.label()
			w = max(w, textWidth(name, charWidth)+2*padding, textWidth(detail, smallWidth)+2*padding)
		}
	}
	return min(w, widest) + tagWidth*float64(min(tags, mostTags))
}

// leastDetail is the width that each row has for its detail, so that targets align.
const leastDetail = 3.5 * smallWidth

// rowWidth returns the width of a row without targets.
func rowWidth(name, detail string) float64 {
	return textWidth(name, charWidth) + max(textWidth(detail, smallWidth), leastDetail) + 3*padding
}

// narrow counts the cells of a text in a monospaced font.
var narrow = runewidth.Condition{StrictEmojiNeutral: true}

func textWidth(s string, char float64) float64 {
	if len(s) > 200 {
		return 2 * widest
	}
	return float64(narrow.StringWidth(plain(s))) * char
}

// fit truncates a text to the width w.
func fit(s string, w, char float64) string {
	s = plain(s)
	return narrow.Truncate(s, max(1, int(w/char+0.01)), "…")
}

// plain returns a text as one line of printable characters.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !isPrint(r) {
			return '\ufffd'
		}
		return r
	}, s)
}
