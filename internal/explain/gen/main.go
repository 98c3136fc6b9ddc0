// Command gen writes the pages of rules, keys and faults in docs, and the descriptions of
// states in package explain. It runs in the folder of that package.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/internal/celrules"
	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

func main() {
	log.SetFlags(0)
	states, err := stateTexts("../../runtime/policy/states.go")
	if err != nil {
		log.Fatal(err)
	}
	files := map[string]string{
		"states.txt":                 states,
		"../../docs/keys.md":         explain.KeyPage(),
		"../../docs/rule-view.md":    celrules.ViewPage(),
		"../../docs/rules/README.md": explain.RuleTable(),
	}
	for _, r := range rules.All() {
		files["../../docs/rules/"+r.Name+".md"] = explain.Rule(r)
	}
	files["../../docs/faults/README.md"] = explain.FaultIndex()
	for _, f := range faulttest.All() {
		files["../../docs/faults/"+f.Name+".md"] = explain.Fault(f, "../")
	}
	old, err := filepath.Glob("../../docs/[rf]*/*.md") // rules, faults
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range old {
		if _, ok := files[filepath.ToSlash(f)]; !ok {
			if err := os.Remove(f); err != nil {
				log.Fatal(err)
			}
		}
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// otherStates matches constants of states in a text.
var otherStates = regexp.MustCompile(`\bState[A-Z]\w+`)

// stateTexts returns the documentation of the constants of type State in a file, as
// paragraphs.
func stateTexts(file string) (string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return "", err
	}
	names := map[string]string{} // names of states by constant
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				if n, err := strconv.ParseUint(lit.Value, 10, 16); err == nil {
					names[v.Names[0].Name] = policy.State(n).String()
				}
			}
		}
		return true
	})
	var list []string
	for _, decl := range f.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			if t, ok := v.Type.(*ast.Ident); !ok || t.Name != "State" || len(v.Values) != 1 {
				continue
			}
			lit, ok := v.Values[0].(*ast.BasicLit)
			if !ok {
				continue
			}
			n, err := strconv.ParseUint(lit.Value, 10, 16)
			if err != nil {
				return "", err
			}
			state := policy.State(n).String()
			text := v.Doc.Text() + v.Comment.Text()
			text = strings.NewReplacer(v.Names[0].Name, state, "[", "", "]", "").Replace(text)
			text = otherStates.ReplaceAllStringFunc(text, func(name string) string { return names[name] })
			list = append(list, fmt.Sprintf("%s\nState %d. %s", state, n, strings.TrimSpace(text)))
		}
	}
	return strings.Join(list, "\n\n") + "\n", nil
}
