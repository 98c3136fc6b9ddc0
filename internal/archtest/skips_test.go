package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mayDecide matches the conditions on which a test may be skipped: the flag -short, the
// operating system, and an unset environment variable. A test fails if a program or file is
// missing.
var mayDecide = regexp.MustCompile(`testing\.Short\(\)|\bGOOS\b|os\.Getenv\(`)

// unset matches the condition that a variable is empty.
var unset = regexp.MustCompile(`^(\w+) == ""$`)

// TestSkips checks that no test skips itself for another reason. A fuzz target may skip an
// input.
func TestSkips(t *testing.T) {
	skips := 0
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case !strings.HasSuffix(file, "_test.go"):
			return nil
		}
		n, err := checkSkips(t, file)
		skips += n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if skips == 0 {
		t.Error("there are no skips")
	}
}

// checkSkips reports the forbidden skips in a file, and returns the number of all skips.
func checkSkips(t *testing.T, file string) (skips int, err error) {
	text, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(text, []byte(".Skip")) {
		return 0, err
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
	if err != nil {
		return 0, err
	}
	var above []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			above = above[:len(above)-1]
			return true
		}
		if s, ok := n.(*ast.SelectorExpr); ok {
			switch s.Sel.Name {
			case "Skip", "Skipf", "SkipNow":
				skips++
				if !permitted(fset, text, above, n) {
					t.Errorf("%s: a test may not be skipped for this reason", fset.Position(n.Pos()))
				}
			}
		}
		above = append(above, n)
		return true
	})
	return skips, nil
}

// permitted reports whether a skip is in a fuzz target, or in the body of an innermost if
// statement with a permitted condition. text is the file, which may set the variable of the
// condition from the environment.
func permitted(fset *token.FileSet, text []byte, above []ast.Node, skip ast.Node) bool {
	inner := true
	for _, n := range slices.Backward(above) {
		switch n := n.(type) {
		case *ast.CallExpr:
			if calledName(n) == "f.Fuzz" {
				return true
			}
		case *ast.IfStmt:
			if !inner {
				continue
			}
			inner = false
			var b bytes.Buffer
			if n.Init != nil {
				printer.Fprint(&b, fset, n.Init)
				b.WriteString("; ")
			}
			printer.Fprint(&b, fset, n.Cond)
			decides := mayDecide.Match(b.Bytes())
			if m := unset.FindSubmatch(b.Bytes()); m != nil {
				decides = bytes.Contains(text, fmt.Appendf(nil, "%s := os.Getenv(", m[1]))
			}
			if n.Body.Pos() <= skip.Pos() && skip.Pos() < n.Body.End() && decides {
				return true
			}
		}
	}
	return false
}
