// Package archtest checks that what imports what is as in docs/architecture.md.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/secure-streams/sspolicy"

// A room is a folder and those below it.
type room struct {
	ours   []string // the rooms that it may import besides itself; "*" for all
	others []string // the modules that it may import; "*" for all
}

// rooms is the picture of docs/architecture.md.
//
// A transport, runtime/<name>, may import runtime and what its own row says: a
// new one gets a row, with its one library.
var rooms = map[string]room{
	"schema":                   {nil, []string{"github.com/santhosh-tekuri/jsonschema/v5"}},
	"lint":                     {[]string{"schema"}, nil},
	"lint/rules":               {[]string{"lint", "schema"}, nil},
	"overlay":                  {[]string{"schema"}, nil},
	"codegen":                  {[]string{"schema", "runtime"}, []string{"github.com/dave/jennifer"}},
	"load":                     {[]string{"schema", "lint", "lint/rules", "overlay", "codegen", "runtime"}, nil},
	"runtime":                  {nil, nil},
	"runtime/internal/request": {[]string{"runtime"}, nil},
	"runtime/http":             {[]string{"runtime", "runtime/internal/request"}, nil},
	"runtime/mqtt":             {[]string{"runtime"}, nil},
	"runtime/ws":               {[]string{"runtime", "runtime/internal/request"}, []string{"github.com/coder/websocket"}},
	"runtime/raw":              {[]string{"runtime"}, nil},
	"runtime/h3":               {[]string{"runtime", "runtime/http"}, []string{"github.com/quic-go/quic-go"}},
	"runtime/oauth":            {[]string{"runtime"}, nil},
	"runtime/system":           {[]string{"runtime"}, nil},
	"runtime/cookies":          {[]string{"runtime"}, []string{"golang.org/x/net"}},
	"runtime/otel":             {[]string{"runtime"}, []string{"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/metric"}},
	"internal/config":          {[]string{"schema", "lint", "lint/rules", "internal/ignore"}, nil},
	"internal/ignore":          {nil, []string{"github.com/bmatcuk/doublestar/v4"}},
	"internal/report":          {[]string{"schema"}, []string{"github.com/mattn/go-runewidth"}},
	"internal/explain":         {[]string{"schema", "lint", "lint/rules", "runtime"}, nil},
	"internal/clidoc":          {nil, []string{"github.com/alecthomas/kong"}},
	"internal/demo":            {nil, nil},
	"internal/leaktest":        {nil, nil},
	"internal/testbroker":      {nil, nil},
	"internal/testcert":        {[]string{"runtime"}, nil},
	"internal/teststream":      {[]string{"runtime"}, nil},
	// These hold tests alone, of all of the runtime.
	"internal/conformance": {[]string{"runtime", "runtime/h3", "runtime/http", "runtime/mqtt", "runtime/raw", "runtime/ws"}, nil},
	"internal/bench":       {[]string{"schema", "codegen", "runtime", "runtime/h3", "runtime/http", "runtime/mqtt", "runtime/raw", "runtime/ws"}, nil},
	"cmd/sspolicy":         {[]string{"*"}, []string{"*"}},
}

// never is what must not even be imported by what a room imports.
var never = map[string][]string{
	// A policy for raw sockets alone must not link an HTTP client.
	"runtime":     {"net/http"},
	"runtime/raw": {"net/http"},
}

// A pkg is what go list -json says of a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

func TestImports(t *testing.T) {
	readFolders(t)
	c := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Module", "./...")
	c.Dir = "../.."
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	var pkgs []*pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
	for name := range rooms {
		if !slices.ContainsFunc(pkgs, func(p *pkg) bool { return p.ImportPath == path.Join(module, name) }) {
			t.Errorf("%s is in the picture, but there is no such package", name)
		}
	}
}

// readFolders reads all folders of the module: go test remembers a success until
// something that the test has read itself changes, and go list is not the test.
func readFolders(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// violations says what is not as in the picture.
func violations(pkgs []*pkg) (wrong []string) {
	byPath := map[string]*pkg{}
	for _, p := range pkgs {
		byPath[p.ImportPath] = p
	}
	for _, p := range pkgs {
		name, ours := strings.CutPrefix(p.ImportPath, module+"/")
		if !ours || name == "internal/archtest" {
			continue
		}
		in := roomOf(name)
		if in == "" {
			wrong = append(wrong, fmt.Sprintf("%s is not in the picture", name))
			continue
		}
		r := rooms[in]
		for _, path := range p.Imports {
			to, ours := strings.CutPrefix(path, module+"/")
			switch d := byPath[path]; {
			case ours && roomOf(to) == in:
			case ours:
				if !allows(r.ours, roomOf(to)) {
					wrong = append(wrong, fmt.Sprintf("%s imports %s", name, to))
				}
			case d == nil || !d.Standard && (d.Module == nil || !allows(r.others, d.Module.Path)):
				wrong = append(wrong, fmt.Sprintf("%s imports %s", name, path))
			}
		}
		for _, path := range p.Deps {
			if slices.Contains(never[in], path) {
				wrong = append(wrong, fmt.Sprintf("%s pulls in %s", name, path))
			}
		}
	}
	return wrong
}

// roomOf returns the room that a package of ours is in, or "". A transport is
// not in the room runtime.
func roomOf(name string) string {
	for dir := name; dir != "."; dir = path.Dir(dir) {
		if _, ok := rooms[dir]; ok && (dir != "runtime" || name == dir || strings.HasPrefix(name, "runtime/internal/")) {
			return dir
		}
	}
	return ""
}

func allows(list []string, x string) bool {
	return slices.Contains(list, x) || slices.Contains(list, "*")
}

// Each way of being wrong is seen.
func TestViolations(t *testing.T) {
	ours := func(name string, imports ...string) *pkg {
		for i, path := range imports {
			if _, ok := rooms[path]; ok {
				imports[i] = module + "/" + path
			}
		}
		return &pkg{ImportPath: module + "/" + name, Imports: imports, Deps: imports}
	}
	library := func(path, mod string) *pkg {
		return &pkg{ImportPath: path, Module: &struct{ Path string }{mod}}
	}
	got := violations([]*pkg{
		{ImportPath: "fmt", Standard: true}, {ImportPath: "net/http", Standard: true},
		library("github.com/dave/jennifer/jen", "github.com/dave/jennifer"),
		ours("schema", "fmt", "lint"),
		ours("lint", "fmt", "schema", "runtime"),
		ours("lint/sub", "lint", "schema", "overlay"),
		ours("codegen", "schema", "runtime", "github.com/dave/jennifer/jen"),
		ours("overlay", "github.com/dave/jennifer/jen"),
		ours("runtime", "net/http"),
		ours("runtime/internal/queue", "fmt", "runtime/http"),
		ours("runtime/http", "net/http", "runtime", "schema"),
		ours("runtime/coap", "runtime"),
		ours("extras", "fmt"),
		ours("cmd/sspolicy", "fmt", "lint", "runtime/http", "github.com/dave/jennifer/jen"),
	})
	want := []string{
		"schema imports lint",
		"lint imports runtime",
		"lint/sub imports overlay",
		"overlay imports github.com/dave/jennifer/jen",
		"runtime pulls in net/http",
		"runtime/internal/queue imports runtime/http",
		"runtime/http imports schema",
		"runtime/coap is not in the picture",
		"extras is not in the picture",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
