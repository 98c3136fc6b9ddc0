package runtime

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// calls are the source files of Fetch, Open and Conn.
var calls = []string{"accept.go", "body.go", "call.go", "conn.go", "exchange.go", "fetch.go", "flush.go", "part.go", "proxied.go", "response.go", "start.go"}

// TestCallsAreALayer checks that Fetch, Open and Conn use only exported names of the other
// files, which do not use them. So a program can do the same with callbacks.
func TestCallsAreALayer(t *testing.T) {
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	pkg, err := config.Check("runtime", fset, files, info)
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	for id, object := range info.Uses {
		if object.Pkg() != pkg {
			continue
		}
		at, of := fset.Position(id.Pos()), fset.Position(object.Pos())
		from, to := slices.Contains(calls, at.Filename), slices.Contains(calls, of.Filename)
		switch {
		case from && !to && !object.Exported():
			t.Errorf("%v: a call uses %s of %s, which is not exported", at, object.Name(), of.Filename)
		case !from && to:
			t.Errorf("%v: %s of %s is used below the calls", at, object.Name(), of.Filename)
		case from && !to:
			used++
		}
	}
	if used == 0 {
		t.Error("no use of another file was found")
	}
}
