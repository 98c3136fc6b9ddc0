package codegen

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/schema"
)

// goModule is a module, outside of this one, of packages that Go wrote, with a
// program that compares what they hold with what Compile makes.
type goModule struct {
	dir      string
	packages []string
	imports  strings.Builder
	checks   strings.Builder
}

func newGoModule(t *testing.T) *goModule {
	t.Helper()
	m := &goModule{dir: t.TempDir()}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	const self = "github.com/secure-streams/sspolicy"
	m.write(t, "go.sum", string(sum))
	m.write(t, "go.mod", strings.Replace(string(mod), "module "+self, "module generated", 1)+
		fmt.Sprintf("\nrequire %s v0.0.0\nreplace %[1]s => %s\n", self, root))
	return m
}

func (m *goModule) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// add adds a policy as a package.
func (m *goModule) add(t *testing.T, file, text string) {
	t.Helper()
	p, _ := compileText(text)
	var b bytes.Buffer
	if err := Go(&b, p, GoOptions{Package: "policy", Source: file}); err != nil {
		t.Errorf("%s: %v", file, err)
		return
	}
	name := fmt.Sprintf("p%d", len(m.packages))
	m.packages = append(m.packages, name)
	m.write(t, name+"/policy.go", b.String())
	m.write(t, name+".json", text)
	fmt.Fprintf(&m.imports, "\t%s %q\n", name, "generated/"+name)
	fmt.Fprintf(&m.checks, "\tcompare(%q, %q, %s.Policy)\n", file, name+".json", name)
}

func (m *goModule) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// check vets the packages and compares what they hold.
func (m *goModule) check(t *testing.T) {
	t.Helper()
	m.write(t, "main.go", `package main

import (
	"fmt"
	"os"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"

`+m.imports.String()+`)

func compare(name, file string, got *runtime.Policy) {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	want, _ := codegen.Compile(schema.NewPolicy(schema.Parse(name, text)))
	if diff := cmp.Diff(want, got); diff != "" {
		fmt.Println(name, diff)
		os.Exit(1)
	}
}

func main() {
`+m.checks.String()+`}
`)
	m.run(t, "vet", "./...")
	m.run(t, "run", ".")
}

func TestGoBuilds(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	m := newGoModule(t)
	for _, file := range policyFiles(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m.add(t, file, string(text))
	}
	m.add(t, "empty", "{}")
	m.check(t)

	// No package does anything at init, and the test would see it. (The
	// compiler may leave an init that returns at once.)
	m.write(t, "control/control.go", "package control\n\nimport \"os\"\n\nvar Args = len(os.Args)\n")
	instruction := regexp.MustCompile(`(?m)^  \S+:\d+\t.*\t([A-Z]+)`)
	for _, name := range append(m.packages, "control") {
		m.run(t, "build", "-o", name+".a", "./"+name)
		if symbols := m.run(t, "tool", "nm", name+".a"); !strings.Contains(symbols, "generated/"+name+".") {
			t.Fatalf("%s has no symbols of its own:\n%s", name, symbols)
		}
		works := false
		code := m.run(t, "tool", "objdump", "-s", `^generated/`+name+`\.init(\.\d+)?$`, name+".a")
		for _, i := range instruction.FindAllStringSubmatch(code, -1) {
			works = works || i[1] != "RET"
		}
		if want := name == "control"; works != want {
			t.Errorf("%s does something at init: %v, want %v:\n%s", name, works, want, code)
		}
	}

	// A package of raw streams alone does without net/http.
	m.write(t, "raw/policy.go", goText(t, `{"s":[{"a":{"protocol":"raw"}}]}`))
	if deps := m.run(t, "list", "-deps", "./raw"); strings.Contains(deps, "\nnet/http\n") {
		t.Error("a policy of raw streams links net/http")
	}
}

func goText(t *testing.T, policy string) string {
	t.Helper()
	p, _ := compileText(policy)
	var b strings.Builder
	if err := Go(&b, p, GoOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGoPackageName(t *testing.T) {
	p, _ := compileText("{}")
	for _, name := range []string{"a-b", "func", "_", "1", "a.b"} {
		var b bytes.Buffer
		if err := Go(&b, p, GoOptions{Package: name}); err == nil || b.Len() > 0 {
			t.Errorf("package %s: %d bytes, error %v", name, b.Len(), err)
		}
	}
}

// TestCorpus takes policies of lws and such as hurt it, which are not part of
// this repository, through the compiler and both emitters.
func TestCorpus(t *testing.T) {
	root := os.Getenv("SSPOLICY_CORPUS")
	if root == "" {
		t.Skip("SSPOLICY_CORPUS names no folder of policies")
	}
	files, err := filepath.Glob(filepath.Join(root, "*", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies in %s: %v", root, err)
	}
	m := newGoModule(t)
	c := newCTest(t)
	var refused, skipped int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := schema.Parse(file, text)
		p, found := Compile(schema.NewPolicy(d))
		found = append(found, schema.Validate(d)...)
		found = append(found, d.Syntax...)
		m.add(t, file, string(text))
		for _, target := range targets() {
			var b bytes.Buffer
			err := C(&b, p, COptions{Target: target, Source: file})
			switch {
			case err == nil:
				c.add(t, target, b.String())
			case target == DefaultTarget && !schema.HasErrors(found) && len(p.StreamTypes) > 0:
				t.Errorf("%s: %v", file, err)
			default:
				skipped++
			}
		}
		if schema.HasErrors(found) {
			refused++
		}
	}
	m.check(t)
	c.compile(t)
	t.Logf("%d policies, %d of them refused; %d tables that a release cannot hold", len(files), refused, skipped)
}
