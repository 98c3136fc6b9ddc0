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

// TestDocs checks that each exported name of this package and the related ones has
// documentation that begins with the name.
func TestDocs(t *testing.T) {
	for _, dir := range []string{".", "../policy", "../credentials", "../file", "../sink", "../smd", "../internal/timers"} {
		p := parse(t, dir)
		if !strings.HasPrefix(p.Doc, "Package "+p.Name+" ") {
			t.Errorf("the documentation of package %s is %.40q", p.Name, p.Doc)
		}
		d := docs{t, p.Name}
		d.funcs("", p.Funcs)
		d.values(p.Consts)
		d.values(p.Vars)
		for _, typ := range p.Types {
			d.check(typ.Name, typ.Doc)
			d.funcs("", typ.Funcs)
			d.funcs(typ.Name+".", typ.Methods)
			d.values(typ.Consts)
			d.values(typ.Vars)
			d.methods(typ)
		}
	}
}

// parse returns the documentation of the package in a directory.
func parse(t *testing.T, dir string) *doc.Package {
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
	return p
}

// docs checks the documentation of a package.
type docs struct {
	t   *testing.T
	pkg string
}

// undocumented are methods that an interface of another package documents.
var undocumented = map[string]bool{"Error": true, "String": true}

func (d docs) check(name, text string) {
	first, rest, _ := strings.Cut(text, " ")
	if first == "A" || first == "An" {
		first, _, _ = strings.Cut(rest, " ")
	}
	base := name[strings.LastIndexByte(name, '.')+1:]
	if strings.TrimRight(first, ",") != base && !(undocumented[base] && text == "") {
		d.t.Errorf("%s: the documentation of %s does not begin with the name: %.40q", d.pkg, name, text)
	}
}

func (d docs) funcs(prefix string, list []*doc.Func) {
	for _, f := range list {
		d.check(prefix+f.Name, f.Doc)
	}
}

func (d docs) values(list []*doc.Value) {
	for _, v := range list {
		if v.Doc == "" {
			d.t.Errorf("%s: %v have no documentation", d.pkg, v.Names)
		}
	}
}

// methods checks the methods of an interface.
func (d docs) methods(typ *doc.Type) {
	it, ok := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.InterfaceType)
	if !ok {
		return
	}
	for _, m := range it.Methods.List {
		if len(m.Names) > 0 { // not an embedded interface
			d.check(typ.Name+"."+m.Names[0].Name, m.Doc.Text())
		}
	}
}
