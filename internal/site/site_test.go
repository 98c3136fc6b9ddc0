package main

import (
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/secure-streams/sspolicy/lint/rules"
)

var (
	target = regexp.MustCompile(` (?:href|src)="([^"]*)"`)
	id     = regexp.MustCompile(` id="([^"]*)"`)
)

// TestLinks follows all links within the site, and opens those to the playground.
func TestLinks(t *testing.T) {
	files, err := Build(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]map[string]bool{}
	for name, content := range files {
		ids[name] = map[string]bool{}
		for _, m := range id.FindAllSubmatch(content, -1) {
			ids[name][html.UnescapeString(string(m[1]))] = true
		}
	}
	examples := 0
	for name, content := range files {
		if path.Ext(name) != ".html" {
			continue
		}
		for _, m := range target.FindAllSubmatch(content, -1) {
			u, err := url.Parse(html.UnescapeString(string(m[1])))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			to := path.Join(path.Dir(name), u.Path)
			if u.Path == "" {
				to = name
			}
			switch {
			case to == "playground" || strings.HasPrefix(to, "playground/"):
				if u.Fragment != "" {
					openExample(t, u.Fragment)
					examples++
				}
			case files[to] == nil:
				t.Errorf("%s: no %s", name, m[1])
			case u.Fragment != "" && path.Ext(to) == ".html" && !ids[to][u.Fragment]:
				t.Errorf("%s: %s has no %q", name, to, u.Fragment)
			}
		}
	}
	if want := 2 * len(rules.All()); examples != want {
		t.Errorf("%d examples open in the playground, want %d", examples, want)
	}
	var index []section
	if err := json.Unmarshal(files["search.json"], &index); err != nil || len(index) < len(rules.All()) {
		t.Errorf("search: %d sections, %v", len(index), err)
	}
}

func openExample(t *testing.T, fragment string) {
	t.Helper()
	packed, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(fragment, "1."))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(flate.NewReader(strings.NewReader(string(packed))))
	var state map[string]string
	if err != nil || json.Unmarshal(text, &state) != nil || state["policy"] == "" {
		t.Errorf("%s: %v", text, err)
	}
}

// TestMap: the map has a link to every page of docs.
func TestMap(t *testing.T) {
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(names) < 20 {
		t.Fatal(names, err)
	}
	text, err := os.ReadFile("../../" + mapPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name = filepath.Base(name); name != "README.md" && !strings.Contains(string(text), "]("+name+")") {
			t.Errorf("%s does not link to %s", mapPage, name)
		}
	}
}

// TestBroken reports a link to a file that does not exist.
func TestBroken(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	_, err := Build(fstest.MapFS{
		"README.md": file("# A\n\n[x](docs/b.md)\n"), "CONTRIBUTING.md": file("# B\n"), "CHANGELOG.md": file("# C\n"),
		mapPage: file("# Map\n"), "docs/b.md": file("# D\n\n[y](nowhere.go)\n"),
	})
	if err == nil || !strings.Contains(err.Error(), "docs/b.md: ") || !strings.Contains(err.Error(), "nowhere.go") {
		t.Error(err)
	}
}

// TestHTML shows HTML in Markdown as text.
func TestHTML(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	files, err := Build(fstest.MapFS{
		"README.md": file("# A <script>\n\n<script>alert(1)</script>\n\n[x](javascript:alert(2))\n"), "CONTRIBUTING.md": file("# B\n"), "CHANGELOG.md": file("# C\n"),
		mapPage: file("# Map\n"), "docs/b.md": file("# D\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if page := string(files["index.html"]); strings.Contains(page, "<script>") || strings.Contains(page, "javascript:") {
		t.Error(page)
	}
}
