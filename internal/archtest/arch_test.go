// Package archtest checks that packages import each other only as the table of
// rules in docs/architecture.md allows.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	root   = "../.."
	module = "github.com/secure-streams/sspolicy"
)

// A rule is a row of the table: the permitted imports of the package of a folder, in
// addition to the standard library and packages of the same folder.
type rule struct {
	imports []string // folders and modules; "all" for any
	never   []string // packages that must not be imported even indirectly
}

var (
	row  = regexp.MustCompile("^\\| `(\\S+)/` \\| .* \\|(.*)\\|$")
	item = regexp.MustCompile("^(never )?`(\\S+)`$")
)

// parseTable reads the table under the heading Packages. A row without imports is
// not a package.
func parseTable(doc string) (map[string]rule, error) {
	_, table, ok := strings.Cut(doc, "\n## Packages\n")
	table, _, _ = strings.Cut(table, "\n## ")
	if !ok {
		return nil, errors.New("no heading Packages")
	}
	rules := map[string]rule{}
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("not a row of a folder, what it holds and its imports: %s", line)
		}
		folder, cell := m[1], strings.TrimSpace(m[2])
		if _, ok := rules[folder]; ok {
			return nil, fmt.Errorf("%s has two rows", folder)
		}
		var r rule
		switch cell {
		case "":
			continue
		case "nothing":
		case "all":
			r.imports = []string{"all"}
		default:
			for s := range strings.SplitSeq(cell, ", ") {
				m := item.FindStringSubmatch(s)
				if m == nil {
					return nil, fmt.Errorf("%s: not a folder, a module, or never and a package: %s", folder, s)
				}
				if m[1] != "" {
					r.never = append(r.never, m[2])
				} else {
					r.imports = append(r.imports, m[2])
				}
			}
		}
		rules[folder] = r
	}
	if len(rules) == 0 {
		return nil, errors.New("no table")
	}
	return rules, nil
}

// A pkg is a package as go list -json describes it.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

func TestImports(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := parseTable(string(doc))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations(rules, list(t)) {
		t.Error(v)
	}
}

// list returns the packages of all modules in the tree, with their imports. It walks the
// folders itself, so that go test knows the files on which the cached result depends.
func list(t *testing.T) []*pkg {
	t.Helper()
	byPath := map[string]*pkg{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case d.Name() != "go.mod":
			return nil
		}
		c := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Module", "./...")
		c.Dir = filepath.Dir(file)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			return fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			p := new(pkg)
			if err := dec.Decode(p); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			byPath[p.ImportPath] = p
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.SortedFunc(maps.Values(byPath), func(a, b *pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
}

// violations describes each difference between the rules and the packages.
func violations(rules map[string]rule, pkgs []*pkg) (wrong []string) {
	byPath := map[string]*pkg{}
	for _, p := range pkgs {
		byPath[p.ImportPath] = p
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if byPath[path.Join(module, name)] == nil {
			wrong = append(wrong, fmt.Sprintf("%s has a row, but is not a package", name))
		}
	}
	for _, p := range pkgs {
		name := folderOf(p.ImportPath)
		if name == "" {
			continue
		}
		r, ok := rules[name]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s has no row", name))
			continue
		}
		for _, i := range p.Imports {
			needs := folderOf(i)
			if d := byPath[i]; needs == "" && d != nil && d.Standard {
				continue
			} else if needs == "" && d != nil && d.Module != nil {
				needs = d.Module.Path
			}
			if !slices.Contains(r.imports, needs) && !slices.Contains(r.imports, "all") {
				wrong = append(wrong, fmt.Sprintf("%s imports %s", name, i))
			}
		}
		for _, d := range p.Deps {
			if slices.Contains(r.never, d) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s indirectly", name, d))
			}
		}
	}
	return wrong
}

// folderOf returns the folder of a package in this tree, or "".
func folderOf(importPath string) string {
	if importPath == module {
		return "."
	}
	name, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return name
}

func TestViolations(t *testing.T) {
	rules, err := parseTable("\n## Packages\n\n| folder | holds | imports |\n|---|---|---|\n" +
		"| `./` | x | `schema` |\n| `schema/` | x | nothing |\n| `lint/` | a, b | `schema` |\n" +
		"| `codegen/` | x | `schema`, `example.com/jennifer` |\n| `runtime/` | x | never `net/http` |\n" +
		"| `runtime/http/` | x | `runtime` |\n| `gone/` | x | nothing |\n| `docs/` | x |  |\n| `cmd/` | x | all |\n\n## More\n\n| `x` |\n")
	if err != nil {
		t.Fatal(err)
	}
	ours := func(name string, imports ...string) *pkg {
		for i, p := range imports {
			if _, ok := rules[p]; ok {
				imports[i] = path.Join(module, p)
			}
		}
		return &pkg{ImportPath: path.Join(module, name), Imports: imports, Deps: imports}
	}
	got := violations(rules, []*pkg{
		{ImportPath: "fmt", Standard: true}, {ImportPath: "net/http", Standard: true},
		{ImportPath: "example.com/jennifer/jen", Module: &struct{ Path string }{"example.com/jennifer"}},
		ours(".", "fmt", "schema", "runtime"),
		ours("schema", "fmt", "lint"),
		ours("lint", "fmt", "schema", "example.com/jennifer/jen"),
		ours("codegen", "schema", "example.com/jennifer/jen"),
		ours("runtime", "net/http"),
		ours("runtime/http", "net/http", "runtime", "schema"),
		ours("runtime/coap", "runtime"),
		ours("cmd", "fmt", "lint", "runtime/http", "example.com/jennifer/jen"),
	})
	want := []string{
		"gone has a row, but is not a package",
		". imports " + module + "/runtime",
		"schema imports " + module + "/lint",
		"lint imports example.com/jennifer/jen",
		"runtime imports net/http indirectly",
		"runtime/http imports " + module + "/schema",
		"runtime/coap has no row",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseTableErrors(t *testing.T) {
	for _, table := range []string{"", "| `a/` | x |", "| `a/` | x | b |", "| `a/` | x | nothing |\n| `a/` | x | all |"} {
		if rules, err := parseTable("\n## Packages\n\n" + table + "\n"); err == nil {
			t.Errorf("%q: %v", table, rules)
		}
	}
	if _, err := parseTable("| `a/` | x | all |"); err == nil {
		t.Error("no heading, no error")
	}
}
