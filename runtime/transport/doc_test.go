package transport_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// undocumented are methods that an interface of another package documents.
var undocumented = map[string]bool{"Error": true, "String": true}

// TestDocs checks that each exported name of the packages that this one belongs with
// has a documentation that begins with the name.
func TestDocs(t *testing.T) {
	for _, dir := range []string{".", "../policy", "../credentials", "../file", "../sink", "../smd", "../internal/timers"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		p, err := doc.NewFromFiles(fset, files, dir)
		if err != nil {
			t.Fatal(err)
		}
		check := func(name, text string) {
			first, rest, _ := strings.Cut(text, " ")
			if first == "A" || first == "An" {
				first, _, _ = strings.Cut(rest, " ")
			}
			base := name[strings.LastIndexByte(name, '.')+1:]
			if strings.TrimRight(first, ",") != base && !(undocumented[base] && text == "") {
				t.Errorf("%s: the documentation of %s does not begin with the name: %.40q", p.Name, name, text)
			}
		}
		if !strings.HasPrefix(p.Doc, "Package "+p.Name+" ") {
			t.Errorf("the documentation of package %s is %.40q", p.Name, p.Doc)
		}
		funcs := func(prefix string, list []*doc.Func) {
			for _, f := range list {
				check(prefix+f.Name, f.Doc)
			}
		}
		values := func(list []*doc.Value) {
			for _, v := range list {
				if v.Doc == "" {
					t.Errorf("%s: %v have no documentation", p.Name, v.Names)
				}
			}
		}
		funcs("", p.Funcs)
		values(p.Consts)
		values(p.Vars)
		for _, typ := range p.Types {
			check(typ.Name, typ.Doc)
			funcs("", typ.Funcs)
			funcs(typ.Name+".", typ.Methods)
			values(typ.Consts)
			values(typ.Vars)
			if it, ok := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.InterfaceType); ok {
				for _, m := range it.Methods.List {
					if len(m.Names) > 0 {
						check(typ.Name+"."+m.Names[0].Name, m.Doc.Text())
					}
				}
			}
		}
	}
}
