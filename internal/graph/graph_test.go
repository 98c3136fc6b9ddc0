package graph

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/schema"
)

func newGraph(text string) *Graph {
	return New(schema.NewPolicy(schema.Parse("policy.json", []byte(text)).Corrected()))
}

// describe returns the nodes and edges of a graph as lines.
func describe(g *Graph) (lines []string) {
	for _, gr := range g.Groups {
		var names []string
		for _, n := range gr.Nodes {
			names = append(names, n.Name)
		}
		lines = append(lines, fmt.Sprintf("%s: %s", gr.title(), strings.Join(names, ", ")))
	}
	for _, n := range g.Nodes {
		text := fmt.Sprintf("%s %s", n.ID, n.Name)
		if _, detail := n.label(); detail != "" {
			text += " [" + detail + "]"
		}
		lines = append(lines, text)
	}
	for _, e := range g.Edges {
		lines = append(lines, fmt.Sprintf("%s -> %s %s", e.From.ID, e.To.ID, e.label()))
	}
	return lines
}

func TestNew(t *testing.T) {
	for _, test := range []struct {
		name, policy string
		want         []string
	}{
		{"empty", `{}`, nil},
		{
			"a policy",
			`{
				"retry": [{"default": {"backoff": [1000, 2000, 60000], "conceal": 5}}, {"other": {}}],
				"certs": [{"root": "MAA="}],
				"trust_stores": [{"name": "store", "stack": ["root"]}],
				"auth": [{"name": "sig", "type": "sigv4", "streamtype": "b"}],
				"s": [
					{"a": {"endpoint": "example.com", "port": 443, "tls": true, "protocol": "h2", "retry": "default", "tls_trust_store": "store", "use_auth": "sig", "rideshare": "b"}},
					{"b": {"endpoint": "example.com", "port": 443, "tls": true}},
					{"c": {"server": true, "port": 80, "protocol": "ws", "server_cert": "root"}},
					{"d": {"local_sink": true}}
				]
			}`,
			[]string{
				"example.com:443 (TLS): a, b",
				"all interfaces:80 (server): c",
				"local sink: d",
				"r1 default [retry 1s 2s 1m, 5 times]",
				"r2 other [retry, unused]",
				"c1 root [not a certificate]",
				"t1 store [trust store]",
				"a1 sig [auth sigv4]",
				"s1 a [h2]",
				"s2 b [h1]",
				"s3 c [ws]",
				"s4 d [h1]",
				"t1 -> c1 stack",
				"s1 -> r1 retry",
				"s1 -> t1 tls_trust_store",
				"s1 -> a1 use_auth",
				"s1 -> s2 rideshare",
				"s3 -> c1 server_cert",
				"a1 -> s2 streamtype",
			},
		},
		{
			"broken references",
			`{
				"retry": [{"default2": {}}],
				"trust_stores": [{"name": "early", "stack": ["late"]}, {"old": ["late"]}],
				"certs": [{"late": "x"}],
				"s": [
					{"a": {"retry": "default", "tls_trust_store": "none", "rideshare": "gone"}},
					{"b": {"retry": "default2", "tls_trust_store": "none"}},
					{"c": {"tls_trust_store": "old"}}
				]
			}`,
			[]string{
				"no endpoint: a, b, c",
				"not defined: gone",
				"r1 default2 [retry]",
				"t1 early [trust store, unused]",
				"t2 old [trust store: no lws version reads this form]",
				"c1 late [unreadable]",
				"s1 a [h1]", "s2 b [h1]", "s3 c [h1]",
				"r2 default [backoff scheme: not defined]",
				"t3 none [trust store: not defined]",
				"s4 gone [streamtype: not defined]",
				"t1 -> c1 stack: defined later",
				"s1 -> r2 retry: not defined",
				"s1 -> t3 tls_trust_store: not defined",
				"s1 -> s4 rideshare: not defined",
				"s2 -> r1 retry",
				"s2 -> t3 tls_trust_store: not defined",
				"s3 -> t2 tls_trust_store: no lws version reads this form",
			},
		},
		{
			"another name that begins like it",
			`{"retry": [{"def": {}}, {"default": {}}], "s": [{"a": {"retry": "def"}}]}`,
			[]string{
				"no endpoint: a",
				"r1 def [retry]", "r2 default [retry, unused]", "s1 a [h1]",
				`s1 -> r1 retry: lws takes "default"`,
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, describe(newGraph(test.policy))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDurations(t *testing.T) {
	got := newGraph(`{"retry": [{"a": {"backoff": [0, 999, 3600000, 5400000, 100]}}, {"b": {"backoff": 500, "conceal": 65535}}, {"c": {"backoff": ["x"]}}]}`)
	for i, want := range []string{"retry 0s 999ms 1h … 100ms", "retry 500ms", "retry x"} {
		if got.Nodes[i].Detail != want {
			t.Errorf("got %q, want %q", got.Nodes[i].Detail, want)
		}
	}
}

// hostile are names with a meaning in SVG, DOT or Mermaid.
var hostile = []string{
	`a"b\`, `\`, "</script><script>alert(1)</script>", "x\ny\r\t", "`md` **b**", `%%{init: {"theme":"dark"}}%%`, "&lt; &amp;",
	"#35; #quot;", "end", `"] --> z["`, "\u202egnp", "日本語", "<img src=x onerror=alert(1)>", "\x00\x01\x7f", "]]>",
	`\N \G \l`, "😀", "style x fill:#f00;", "classDef a:#b;", "fa:fa-car", strings.Repeat("long", 200), "",
}

func hostilePolicy() string {
	var retry, stores, streams []string
	for i, name := range hostile {
		q := schema.Quote(name)
		retry = append(retry, fmt.Sprintf(`{%s: {"backoff": [%s]}}`, q, q))
		stores = append(stores, fmt.Sprintf(`{"name": %s, "stack": [%[1]s]}`, q))
		streams = append(streams, fmt.Sprintf(`{%s: {"endpoint": %[1]s, "protocol": %[1]s, "retry": %[1]s, "tls_trust_store": %s, "rideshare": %[1]s}}`,
			q, schema.Quote(hostile[(i+1)%len(hostile)])))
	}
	return fmt.Sprintf(`{"retry": [%s], "trust_stores": [%s], "s": [%s]}`, strings.Join(retry, ","), strings.Join(stores, ","), strings.Join(streams, ","))
}

func TestHostileNames(t *testing.T) {
	g := newGraph(hostilePolicy())
	check(t, g)
	texts := strings.Join(svgTexts(t, g.SVG()), "\n")
	for _, name := range hostile {
		if want := plain(name); len(name) < 30 && !strings.Contains(texts, want) {
			t.Errorf("the SVG does not show %q", want)
		}
	}
}

// svgTexts returns the texts of an SVG document, which must be XML without links,
// scripts and event handlers.
func svgTexts(t *testing.T, svg string) (texts []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	allowed := []string{"svg", "title", "desc", "style", "rect", "g", "text", "path"}
	for {
		token, err := d.Token()
		if err == io.EOF {
			return texts
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			if !slices.Contains(allowed, x.Name.Local) {
				t.Errorf("element %s", x.Name.Local)
			}
			for _, a := range x.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" {
					t.Errorf("attribute %s", a.Name.Local)
				}
			}
		case xml.CharData:
			texts = append(texts, string(x))
		}
	}
}

const (
	dotText = `"(?:[^"\\\n]|\\["\\n])*"`
	dotMore = `(?:, (?:color|fontcolor)=(?:red|gray)|, style=dashed)*`
	flow    = `"[\pL\pN \-_.,/():#;]*(?:<br/>[\pL\pN \-_.,/():#;]*)?"`
)

// dotLine and mermaidLine match the lines that DOT and Mermaid write.
var (
	dotLine = regexp.MustCompile(`^\t*(?:digraph policy \{|rankdir=LR;|(?:node|edge) \[fontname="sans-serif", fontsize=\d+\];|label=` + dotText +
		`;|subgraph cluster_\d+ \{|\}|[srtac]\d+ \[shape=[a-z]+, label=` + dotText + dotMore + `\];|[srtac]\d+ -> [srtac]\d+ \[label=` + dotText + dotMore + `\];)$`)
	mermaidLine = regexp.MustCompile(`^ *(?:flowchart LR|subgraph e\d+ \[` + flow + `\]|end|[srtac]\d+(?:\[|\(\[|\[\[|\{\{|\[/)` + flow + `(?:\]|\]\)|\]\]|\}\}|/\])|` +
		`[srtac]\d+ (?:-->|-\.->)\|` + flow + `\| [srtac]\d+|classDef (?:bad stroke:#d00,stroke-dasharray:5 3|unused opacity:0\.6)|class [srtac\d,]+ (?:bad|unused)|linkStyle [\d,]+ stroke:#d00)$`)
)

// check checks laws of every graph.
func check(t *testing.T, g *Graph) {
	t.Helper()
	svg := g.SVG()
	svgTexts(t, svg)
	if svg != g.SVG() {
		t.Error("the SVG differs the second time")
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(g.DOT(), "\n"), "\n") {
		if !dotLine.MatchString(line) {
			t.Errorf("DOT: %q", line)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(g.Mermaid(), "\n"), "\n") {
		if !mermaidLine.MatchString(line) || strings.Contains(line, "style") || strings.Count(line, "classDef") > 1 {
			t.Errorf("Mermaid: %q", line)
		}
	}

	l := newLayout(g)
	for c, column := range l.columns {
		bottom := float64(margin)
		for _, i := range column {
			if i.group == nil && i.node == nil {
				continue
			}
			if i.y < bottom-0.01 || i.x < 0 || i.x+i.w > l.width || i.y+i.h > l.height {
				t.Errorf("column %d: a box at %v is over another one, or outside of %v x %v", c, i.box, l.width, l.height)
			}
			bottom = i.y + i.h
			if c+1 < numColumns && l.w[c+1] > 0 && i.x+i.w > l.x[c+1] {
				t.Errorf("column %d: a box at %v reaches into the next", c, i.box)
			}
		}
	}
	nodes := 0
	for _, gr := range g.Groups {
		nodes += len(gr.Nodes)
		for _, n := range gr.Nodes {
			if row, box := l.nodes[n], l.groups[gr]; row.y < box.y || row.y+row.h > box.y+box.h {
				t.Errorf("the row of %q is outside of its group", n.Name)
			}
		}
	}
	for _, n := range g.Nodes {
		if n.Kind == schema.Streams {
			nodes--
		}
	}
	if nodes != 0 {
		t.Errorf("%d streamtypes are in no group, or in several", nodes)
	}
}

// generate returns a policy with n streamtypes at m endpoints.
func generate(n, m int) string {
	var streams, retry []string
	for i := range 5 {
		retry = append(retry, fmt.Sprintf(`{"retry_%d": {"backoff": [%d]}}`, i, i+1))
	}
	for i := range n {
		streams = append(streams, fmt.Sprintf(`{"stream_%d": {"endpoint": "host%d.example.com", "port": 443, "retry": "retry_%d"}}`, i, i%m, i*7%6))
	}
	return fmt.Sprintf(`{"retry": [%s], "s": [%s]}`, strings.Join(retry, ","), strings.Join(streams, ","))
}

func TestManyStreamtypes(t *testing.T) {
	g := newGraph(generate(100, 12))
	check(t, g)
	l := newLayout(g)
	if n := len(l.lines); n > 12*6 {
		t.Errorf("%d lines, want at most one for each endpoint and scheme", n)
	}
	if l.width > 1280 {
		t.Errorf("%v pixels wide", l.width)
	}
	check(t, newGraph(generate(1000, 200)))
}

func TestCrossings(t *testing.T) {
	g := newGraph(`{
		"retry": [{"r1": {}}, {"r2": {}}, {"r3": {}}],
		"s": [{"a": {"endpoint": "a", "retry": "r3"}}, {"b": {"endpoint": "b", "retry": "r2"}}, {"c": {"endpoint": "c", "retry": "r1"}}]
	}`)
	if n := newLayout(g).crossings(); n != 0 {
		t.Errorf("%d crossings, want none", n)
	}
}

func TestInversions(t *testing.T) {
	for _, test := range []struct {
		list []float64
		want int
	}{
		{nil, 0}, {[]float64{1, 1, 2}, 0}, {[]float64{2, 1}, 1}, {[]float64{3, 2, 1}, 3}, {[]float64{2, 3, 1, 4}, 2},
	} {
		if got := inversions(slices.Clone(test.list)); got != test.want {
			t.Errorf("%v: got %d, want %d", test.list, got, test.want)
		}
	}
}

// policies returns the policies of the tree, and those of SSPOLICY_CORPUS.
func policies(tb testing.TB) (files []string) {
	patterns := []string{"../../fixtures/*.json", "../../lint/rules/testdata/*.json"}
	if dir := os.Getenv("SSPOLICY_CORPUS"); dir != "" {
		patterns = append(patterns, filepath.Join(dir, "*", "*.json"))
	}
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, found...)
	}
	return files
}

func TestPolicies(t *testing.T) {
	for _, file := range policies(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			check(t, newGraph(string(text)))
		})
	}
}

func FuzzGraph(f *testing.F) {
	f.Add(hostilePolicy())
	f.Add(generate(40, 7))
	for _, file := range policies(f) {
		if text, err := os.ReadFile(file); err == nil && len(text) < 20_000 {
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		check(t, New(schema.NewPolicy(schema.Scan("policy.json", []byte(text)))))
	})
}
