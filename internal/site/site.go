package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

//go:embed static
var static embed.FS

var pageTemplate = template.Must(template.ParseFS(static, "static/page.html"))

var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()))

// A page is a Markdown file.
type page struct {
	source string // its name in the tree
	name   string // its name in the site
	title  string
	text   []byte
	root   ast.Node
}

// A site is what Build makes.
type site struct {
	tree  fs.FS
	pages map[string]*page // by source
	order []*page          // for the navigation: the map's links, in its order
	files map[string][]byte
	index []section
}

// A section is an entry of the search index.
type section struct {
	Title string `json:"title"` // of the page
	Head  string `json:"head"`  // its heading
	URL   string `json:"url"`
	Text  string `json:"text"`
}

// Build returns the files of the site for a tree, by name.
func Build(tree fs.FS) (map[string][]byte, error) {
	s := &site{tree: tree, pages: map[string]*page{}, files: map[string][]byte{}}
	sources := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	err := fs.WalkDir(tree, "docs", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path.Ext(name) == ".md" {
			sources = append(sources, name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		if err := s.read(source); err != nil {
			return nil, err
		}
	}
	s.navigate()
	for _, source := range slices.Sorted(maps.Keys(s.pages)) {
		if err := s.write(s.pages[source]); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
	}
	for _, name := range []string{"style.css", "site.js"} {
		if s.files[name], err = static.ReadFile("static/" + name); err != nil {
			return nil, err
		}
	}
	s.files["search.json"], err = json.Marshal(s.index)
	return s.files, err
}

// mapPage lists the pages.
const mapPage = "docs/README.md"

// pageName returns the name of a Markdown file in the site.
func pageName(source string) string {
	if source == mapPage {
		return "map.html" // README.md is index.html
	}
	name := strings.TrimPrefix(source, "docs/")
	if path.Base(name) == "README.md" {
		return path.Join(path.Dir(name), "index.html")
	}
	return strings.ToLower(strings.TrimSuffix(name, ".md")) + ".html"
}

func (s *site) read(source string) error {
	content, err := fs.ReadFile(s.tree, source)
	if err != nil {
		return err
	}
	if name, ok := ruleOf(source); ok {
		if content, err = withPlayground(name, content); err != nil {
			return err
		}
	}
	p := &page{source: source, name: pageName(source), text: content}
	p.root = markdown.Parser().Parse(text.NewReader(content), parser.WithContext(parser.NewContext(parser.WithIDs(&slugs{}))))
	for n := p.root.FirstChild(); n != nil && p.title == ""; n = n.NextSibling() {
		if h, ok := n.(*ast.Heading); ok {
			p.title = plain(h, content)
		}
	}
	if p.title == "" {
		return fmt.Errorf("%s: no heading", source)
	}
	s.pages[source] = p
	return nil
}

// plain returns the text in a node.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // the function returns no errors
		switch n := n.(type) {
		case *ast.Text:
			if entering {
				b.Write(n.Segment.Value(source))
				if n.SoftLineBreak() {
					b.WriteByte(' ')
				}
			}
		case *ast.String:
			if entering {
				b.Write(n.Value)
			}
		case *ast.CodeBlock, *ast.FencedCodeBlock:
			if entering {
				for i := range n.Lines().Len() {
					line := n.Lines().At(i)
					b.Write(line.Value(source))
				}
			}
		}
		if !entering && n.Type() == ast.TypeBlock {
			b.WriteByte(' ')
		}
		return ast.WalkContinue, nil
	})
	return strings.Join(strings.Fields(b.String()), " ")
}

// navigate orders the pages: README.md, the map, its links, the rest.
func (s *site) navigate() {
	s.order = []*page{s.pages["README.md"], s.pages[mapPage]}
	add := func(p *page) {
		if p != nil && !slices.Contains(s.order, p) {
			s.order = append(s.order, p)
		}
	}
	links(s.pages[mapPage].root, func(destination *[]byte) {
		target, _, _ := strings.Cut(string(*destination), "#")
		add(s.pages[path.Join("docs", target)])
	})
	for _, source := range slices.Sorted(maps.Keys(s.pages)) {
		if dir := path.Dir(source); dir == "docs" || dir == "." {
			add(s.pages[source])
		}
	}
}

// links calls a function for the destination of each link and image.
func links(root ast.Node, f func(destination *[]byte)) {
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // the function returns no errors
		if entering {
			switch n := n.(type) {
			case *ast.Link:
				f(&n.Destination)
			case *ast.Image:
				f(&n.Destination)
			}
		}
		return ast.WalkContinue, nil
	})
}

// A link is an entry of the navigation.
type link struct {
	Title, URL string
	Current    bool
}

func (s *site) write(p *page) error {
	var broken error
	links(p.root, func(destination *[]byte) {
		to, err := s.resolve(p, string(*destination))
		if err != nil && broken == nil {
			broken = err
		}
		*destination = []byte(to)
	})
	if broken != nil {
		return broken
	}
	s.search(p)
	var body bytes.Buffer
	if err := markdown.Renderer().Render(&body, p.text, p.root); err != nil {
		return err
	}
	var nav []link
	for _, other := range s.order {
		nav = append(nav, link{other.title, relative(p.name, other.name), other == p})
	}
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, struct {
		Title, Root string
		Nav         []link
		Body        template.HTML // goldmark escapes what is not Markdown
	}{p.title, relative(p.name, ""), nav, template.HTML(body.String())})
	s.files[p.name] = out.Bytes()
	return err
}

// relative returns the URL of a file of the site, or of its root, for a page.
func relative(from, to string) string {
	return strings.Repeat("../", strings.Count(from, "/")) + to
}

// resolve returns the URL of what a page links to. A file of the tree that is not a page
// is copied.
func (s *site) resolve(p *page, destination string) (string, error) {
	if strings.Contains(destination, ":") || strings.HasPrefix(destination, "#") || strings.HasPrefix(destination, relative(p.name, "playground/")) {
		return destination, nil
	}
	target, anchor, hasAnchor := strings.Cut(destination, "#")
	source := path.Join(path.Dir(p.source), target)
	if hasAnchor {
		anchor = "#" + anchor
	}
	if to := s.pages[source]; to != nil {
		return relative(p.name, to.name) + anchor, nil
	}
	name, err := s.copy(source)
	return relative(p.name, name) + anchor, err
}

// copy adds a file or a folder of the tree and returns its name in the site.
func (s *site) copy(source string) (string, error) {
	info, err := fs.Stat(s.tree, source)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return s.list(source)
	}
	name := "source/" + source
	if inDocs, ok := strings.CutPrefix(source, "docs/"); ok {
		name = inDocs
	}
	switch path.Ext(name) {
	case ".json", ".svg", ".png", ".txt":
	default:
		name += ".txt" // browsers show it
	}
	s.files[name], err = fs.ReadFile(s.tree, source)
	return name, err
}

// list adds a page with the files of a folder.
func (s *site) list(source string) (string, error) {
	name := "source/" + source + "/index.html"
	if s.files[name] != nil {
		return name, nil
	}
	entries, err := fs.ReadDir(s.tree, source)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", source)
	for _, e := range entries {
		if !e.IsDir() {
			fmt.Fprintf(&b, "- [%s](<%s>)\n", e.Name(), e.Name())
		}
	}
	content := []byte(b.String())
	p := &page{source: source + "/index", name: name, title: source, text: content, root: markdown.Parser().Parse(text.NewReader(content))}
	s.files[name] = []byte{}
	return name, s.write(p)
}

// search adds the sections of a page to the index.
func (s *site) search(p *page) {
	cur := -1
	for n := p.root.FirstChild(); n != nil; n = n.NextSibling() {
		if h, ok := n.(*ast.Heading); ok || cur < 0 {
			entry := section{Title: p.title, URL: p.name}
			if ok {
				entry.Head = plain(h, p.text)
				if id, found := h.AttributeString("id"); found && n != p.root.FirstChild() {
					entry.URL += "#" + string(id.([]byte))
				}
			}
			cur = len(s.index)
			s.index = append(s.index, entry)
			if ok {
				continue
			}
		}
		if body := plain(n, p.text); s.index[cur].Text == "" {
			s.index[cur].Text = body
		} else {
			s.index[cur].Text += " " + body
		}
	}
}
