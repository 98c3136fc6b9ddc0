package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestBoundedReads checks that no package of the command reads a file or a stream of any
// size into memory: package readfile has a limit.
func TestBoundedReads(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module+"/cmd/sspolicy" {
			continue
		}
		read := 0
		for _, name := range append(p.Deps, p.ImportPath) {
			folder := folderOf(name)
			if folder == "" {
				continue
			}
			files, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if !strings.HasSuffix(file, "_test.go") {
					read++
					checkReads(t, file)
				}
			}
		}
		if read < 100 {
			t.Errorf("only %d files were read", read)
		}
		return
	}
	t.Error("there is no package cmd/sspolicy")
}

// checkReads reports the calls in a file that read without a limit.
func checkReads(t *testing.T, file string) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch name := calledName(call); name {
		case "io.ReadAll":
			if arg, ok := call.Args[0].(*ast.CallExpr); ok && calledName(arg) == "io.LimitReader" {
				return true
			}
			fallthrough
		case "os.ReadFile", "tls.LoadX509KeyPair":
			t.Errorf("%s: %s has no limit", fset.Position(n.Pos()), name)
		}
		return true
	})
}

// calledName returns the package and name of a called function, or "".
func calledName(call *ast.CallExpr) string {
	if s, ok := call.Fun.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name + "." + s.Sel.Name
		}
	}
	return ""
}
