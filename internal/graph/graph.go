// Package graph draws policies: streamtypes by endpoint, and the backoff schemes,
// trust stores, certificates and auth schemes that they refer to.
//
// New makes a Graph of a document, which may be invalid; SVG, DOT and Mermaid write it.
// The package opens no files and no connections, and does not look at the clock.
package graph

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/secure-streams/sspolicy/schema"
)

// A Graph is a policy as nodes and edges, in the order of the text.
type Graph struct {
	Title  string // the name of the source
	Groups []*Group
	Nodes  []*Node
	Edges  []*Edge
}

// A Group is the streamtypes that share an endpoint.
type Group struct {
	Name   string // host:port, or another form of an endpoint
	Detail string // such as "TLS" or "server"
	Nodes  []*Node
}

// A Node is a definition, or an undefined name.
type Node struct {
	ID      string // unique in the graph: a letter and a number
	Kind    schema.Section
	Name    string
	Detail  string
	Span    schema.Span // of the name in the definition, or of the first reference to an undefined name
	Problem string      // why lws does not find the definition, or ""
	Unused  bool        // an unreferenced definition other than a streamtype
}

// An Edge is a reference.
type Edge struct {
	From, To *Node
	Key      string // the key that refers, such as "retry"
	Span     schema.Span
	Problem  string // why lws refuses the reference or uses another definition, or ""
}

// Broken returns the edges with a problem.
func (g *Graph) Broken() []*Edge {
	return slices.DeleteFunc(slices.Clone(g.Edges), func(e *Edge) bool { return e.Problem == "" })
}

// sections are the kinds of nodes, and the letters of their IDs.
var sections = []struct {
	kind   schema.Section
	letter string
}{
	{schema.Streams, "s"}, {schema.Retry, "r"}, {schema.TrustStores, "t"}, {schema.Auth, "a"}, {schema.Certs, "c"},
}

// New returns the graph of a policy.
func New(p *schema.Policy) *Graph {
	b := &builder{
		graph:   &Graph{Title: p.Document.Source.Name},
		nodes:   map[*schema.Definition]*Node{},
		missing: map[missing]*Node{},
		groups:  map[endpoint]*Group{},
		count:   map[schema.Section]int{},
	}
	for _, d := range p.Definitions {
		if d.Section != schema.Metrics {
			b.define(d)
		}
	}
	defs := p.Resolve().Definition
	for _, r := range p.References {
		b.refer(r.From, r.Key.Ref, r.Key.Name, r.Span, r.Name, r.Target, r.Later, defs[r])
	}
	for _, d := range p.Section(schema.Auth) { // lws looks up this name when it needs a token
		if s := d.Get("streamtype"); s != nil && s.Member.Value.Kind == schema.String {
			var target *schema.Definition
			if defs := p.Lookup(schema.Streams, s.Member.Value.Text()); len(defs) > 0 {
				target = defs[len(defs)-1]
			}
			b.refer(d, schema.Streams, "streamtype", s.Member.Value.Span, s.Member.Value.Text(), target, nil, target)
		}
	}
	used := map[*Node]bool{}
	for _, e := range b.graph.Edges {
		used[e.To] = true
	}
	for _, n := range b.graph.Nodes {
		n.Unused = n.Kind != schema.Streams && !used[n]
	}
	return b.graph
}

type missing struct {
	kind schema.Section
	name string
}

// An endpoint is what the streamtypes of a group share.
type endpoint struct {
	name, detail string
}

type builder struct {
	graph   *Graph
	nodes   map[*schema.Definition]*Node
	missing map[missing]*Node
	groups  map[endpoint]*Group
	count   map[schema.Section]int
}

// add adds a node.
func (b *builder) add(kind schema.Section, name, detail string, at schema.Span) *Node {
	i := slices.IndexFunc(sections, func(s struct {
		kind   schema.Section
		letter string
	}) bool {
		return s.kind == kind
	})
	b.count[kind]++
	n := &Node{ID: fmt.Sprintf("%s%d", sections[i].letter, b.count[kind]), Kind: kind, Name: name, Detail: detail, Span: at}
	b.graph.Nodes = append(b.graph.Nodes, n)
	return n
}

// join adds a streamtype to the group of an endpoint.
func (b *builder) join(n *Node, e endpoint) {
	g := b.groups[e]
	if g == nil {
		g = &Group{Name: e.name, Detail: e.detail}
		b.groups[e] = g
		b.graph.Groups = append(b.graph.Groups, g)
	}
	g.Nodes = append(g.Nodes, n)
}

func (b *builder) define(d *schema.Definition) {
	n := b.add(d.Section, d.Name, "", d.NameSpan)
	b.nodes[d] = n
	if d.Unreadable {
		n.Problem = "no lws version reads this form"
	}
	switch d.Section {
	case schema.Streams:
		n.Detail = cmp.Or(d.Protocol(), d.Text("protocol"))
		b.join(n, newEndpoint(d))
	case schema.Retry:
		n.Detail = retryDetail(d)
	case schema.TrustStores:
		n.Detail = "trust store"
	case schema.Auth:
		n.Detail = strings.TrimSpace("auth " + d.Text("type"))
	case schema.Certs:
		n.Detail = certDetail(d)
	}
}

// refer adds a reference. target is the definition that the text names, later the
// one after the reference, and def the one that lws uses.
func (b *builder) refer(from *schema.Definition, kind schema.Section, key string, at schema.Span, name string, target, later, def *schema.Definition) {
	e := &Edge{From: b.nodes[from], Key: key, Span: at}
	switch {
	case target != nil:
		e.To = b.nodes[target]
		e.Problem = e.To.Problem
		if e.Problem == "" && def == nil {
			e.Problem = "lws does not find it"
		} else if def != nil && def != target && def.Name != target.Name {
			e.Problem = "lws takes " + schema.QuoteName(def.Name)
		}
	case later != nil:
		e.To = b.nodes[later]
		e.Problem = "defined later"
	default:
		m := missing{kind, name}
		if b.missing[m] == nil {
			b.missing[m] = b.add(kind, name, kind.Noun(), at)
			b.missing[m].Problem = "not defined"
			if kind == schema.Streams {
				b.join(b.missing[m], endpoint{name: "not defined"})
			}
		}
		e.To = b.missing[m]
		e.Problem = e.To.Problem
	}
	b.graph.Edges = append(b.graph.Edges, e)
}

// newEndpoint returns the endpoint of a streamtype.
func newEndpoint(d *schema.Definition) endpoint {
	e := endpoint{name: d.Text("endpoint")}
	port := d.Text("port")
	if d.Bool("server") {
		e.name = cmp.Or(e.name, "all interfaces")
	} else if e.name == "" && d.Bool("local_sink") {
		e.name = "local sink"
	}
	e.name = cmp.Or(e.name, "no endpoint")
	if port != "" {
		e.name += ":" + port
	}
	var detail []string
	if d.Bool("server") {
		detail = append(detail, "server")
	}
	if d.Bool("tls") {
		detail = append(detail, "TLS")
	}
	e.detail = strings.Join(detail, ", ")
	return e
}

// retryDetail describes a backoff scheme.
func retryDetail(d *schema.Definition) string {
	var waits []string
	for _, s := range d.Settings {
		if s.Key == nil || s.Key.Name != "backoff" {
			continue
		}
		if s.Member.Value.Kind == schema.Number {
			waits = append(waits, milliseconds(&s.Member.Value))
		}
		for _, e := range s.Member.Value.Elems() {
			waits = append(waits, milliseconds(&e.Value))
		}
	}
	text := "retry"
	if len(waits) > 4 {
		waits = append(waits[:3], "…", waits[len(waits)-1])
	}
	if len(waits) > 0 {
		text += " " + strings.Join(waits, " ")
	}
	if conceal := d.Text("conceal"); conceal != "" && conceal != "65535" {
		text += ", " + conceal + " times"
	}
	return text
}

// milliseconds returns a number of milliseconds as a duration, or its text.
func milliseconds(v *schema.Value) string {
	if d, err := time.ParseDuration(v.Text() + "ms"); err == nil {
		text := d.String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
		return text
	}
	return v.Text()
}

// certDetail describes a certificate or key.
func certDetail(d *schema.Definition) string {
	der, err := schema.DecodeCert(d.Value.Text())
	if err != nil {
		return "unreadable"
	}
	if c, err := x509.ParseCertificate(der); err == nil {
		return "until " + c.NotAfter.UTC().Format(time.DateOnly)
	}
	for _, parse := range []func([]byte) error{
		func(b []byte) error { _, err := x509.ParsePKCS8PrivateKey(b); return err },
		func(b []byte) error { _, err := x509.ParsePKCS1PrivateKey(b); return err },
		func(b []byte) error { _, err := x509.ParseECPrivateKey(b); return err },
	} {
		if parse(der) == nil {
			return "private key"
		}
	}
	return "not a certificate"
}
