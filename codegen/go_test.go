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

// A goModule is a separate module of generated packages, with a program that compares
// them with the result of Compile.
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
	b.Reset()
	if err := Go(&b, p, GoOptions{Package: "proxied", Source: file, Proxied: true}); err != nil {
		t.Errorf("%s: proxied: %v", file, err)
		return
	}
	m.write(t, name+"/proxied/policy.go", b.String())
	fmt.Fprintf(&m.imports, "\t%s %q\n", name, "generated/"+name)
	fmt.Fprintf(&m.checks, "\tcompare(%q, %q, %s.Policy)\n", file, name+".json", name)
}

func (m *goModule) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// check vets the packages and compares their policies.
func (m *goModule) check(t *testing.T) {
	t.Helper()
	m.write(t, "main.go", `package main

import (
	"fmt"
	"os"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"

`+m.imports.String()+`)

func compare(name, file string, got *policy.Policy) {
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

	// Packages do nothing at init, except a control package that shows that the
	// check works. The compiler may emit an init that only checks the stack and returns:
	// one that does something refers to another symbol.
	m.write(t, "control/control.go", "package control\n\nimport \"os\"\n\nvar Args = len(os.Args)\n")
	reference := regexp.MustCompile(`R_\w+:(\S+)`)
	for _, name := range append(m.packages, "control") {
		m.run(t, "build", "-o", name+".a", "./"+name)
		if symbols := m.run(t, "tool", "nm", name+".a"); !strings.Contains(symbols, "generated/"+name+".") {
			t.Fatalf("%s has no symbols of its own:\n%s", name, symbols)
		}
		works := false
		code := m.run(t, "tool", "objdump", "-s", `^generated/`+name+`\.init(\.\d+)?$`, name+".a")
		for _, r := range reference.FindAllStringSubmatch(code, -1) {
			works = works || !strings.HasPrefix(r[1], "runtime.morestack")
		}
		if want := name == "control"; works != want {
			t.Errorf("%s has code at init: %v, want %v:\n%s", name, works, want, code)
		}
	}

	// A policy of raw streams alone does not link net/http.
	m.write(t, "raw/policy.go", goText(t, `{"s":[{"a":{"protocol":"raw"}}]}`))
	if deps := m.run(t, "list", "-deps", "./raw"); strings.Contains(deps, "\nnet/http\n") {
		t.Error("a policy of raw streams links net/http")
	}
}

// TestGoProgram builds and runs a program around a generated package.
func TestGoProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	m := newGoModule(t)
	m.write(t, "policy/policy.go", goText(t, `{
		"retry": [{"briefly": {"backoff": [1], "conceal": 1}}],
		"s": [
			{"hello": {"endpoint": "${server}", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "/",
				"opportunistic": true, "retry": "briefly",
				"metadata": [{"server": ""}, {"Fetch": "x-fetch:"}, {"len": "x-len:"}, {"x-served-by": "x-served-by:"}]}},
			{"no metadata": {"endpoint": "127.0.0.1", "port": 1, "protocol": "h1", "http_method": "GET", "http_url": "/"}}
		]}`))
	text, err := os.ReadFile("testdata/program.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "main.go", string(text))
	m.run(t, "vet", "./...")
	const want = `body: "ping" x-fetch: ["f"] x-len: []
served by: here
read: "pong" x-fetch: [] x-len: ["5"]
states: CREATING POLL CONNECTING CONNECTED QOS_ACK_REMOTE DISCONNECTED DESTROYING
all retries failed: true
allocations: 0
`
	if got := m.run(t, "run", "."); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestGoDocs builds the programs and fragments of docs/go.md and docs/signing.md.
func TestGoDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	doc, err := os.ReadFile("../docs/go.md")
	if err != nil {
		t.Fatal(err)
	}
	signing, err := os.ReadFile("../docs/signing.md")
	if err != nil {
		t.Fatal(err)
	}
	doc = append(doc, signing...)
	m := newGoModule(t)
	for _, name := range []string{"weather", "station"} {
		policy, err := os.ReadFile("../fixtures/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		m.write(t, name+"/policy.go", strings.Replace(goText(t, string(policy)), "package policy", "package "+name, 1))
	}
	imports := map[string]string{}
	for _, path := range []string{"bufio", "context", "crypto/tls", "errors", "fmt", "io", "io/fs", "log", "log/slog", "net", "os", "strings",
		"generated/station", "generated/weather", "github.com/secure-streams/sspolicy/runtime", "github.com/secure-streams/sspolicy/runtime/system", "github.com/secure-streams/sspolicy/runtime/signing",
		"github.com/secure-streams/sspolicy", "github.com/secure-streams/sspolicy/runtime/oauth", "github.com/secure-streams/sspolicy/runtime/cookies", "github.com/secure-streams/sspolicy/runtime/raw", "github.com/secure-streams/sspolicy/runtime/policy",
		"github.com/secure-streams/sspolicy/runtime/sink", "github.com/secure-streams/sspolicy/runtime/ws", "github.com/secure-streams/sspolicy/runtime/smd", "github.com/secure-streams/sspolicy/runtime/credentials"} {
		imports[filepath.Base(path)] = path
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```").FindAllSubmatch(doc, -1)
	for i, b := range blocks {
		code := string(b[1])
		if !strings.HasPrefix(code, "package ") {
			var header strings.Builder
			for name, path := range imports {
				if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(code) {
					fmt.Fprintf(&header, "import %q\n", path)
				}
			}
			params := "ctx context.Context, c *runtime.Context"
			for _, name := range []string{"context", "runtime"} {
				if !strings.Contains(header.String(), imports[name]+`"`) {
					fmt.Fprintf(&header, "import %q\n", imports[name])
				}
			}
			if strings.Contains(code, "c, err :=") {
				params = "_ context.Context, _ *runtime.Context"
			}
			code = fmt.Sprintf("package fragment\n%s\nfunc F(%s) error {\n%s}\n", header.String(), params, code)
		}
		m.write(t, fmt.Sprintf("d%d/doc.go", i), strings.ReplaceAll(code, "example.com/program/", "generated/"))
	}
	if len(blocks) < 6 {
		t.Errorf("%d blocks of code, want at least 6", len(blocks))
	}
	m.run(t, "vet", "./...")
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

// TestCorpus runs the compiler and both writers on policies outside this repository.
func TestCorpus(t *testing.T) {
	root := os.Getenv("SSPOLICY_CORPUS")
	if root == "" {
		t.Skip("SSPOLICY_CORPUS is not set")
	}
	files, err := filepath.Glob(filepath.Join(root, "*", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies in %s: %v", root, err)
	}
	m := newGoModule(t)
	c := newCTest(t)
	var invalid, skipped int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := schema.Parse(file, text)
		p, diags := Compile(schema.NewPolicy(d))
		diags = append(diags, schema.Validate(d)...)
		diags = append(diags, d.Syntax...)
		m.add(t, file, string(text))
		for _, target := range targets() {
			var b bytes.Buffer
			err := C(&b, p, COptions{Target: target, Source: file})
			switch {
			case err == nil:
				c.add(t, target, b.String())
			case target == DefaultTarget && !schema.HasErrors(diags) && len(p.StreamTypes) > 0:
				t.Errorf("%s: %v", file, err)
			default:
				skipped++
			}
		}
		if schema.HasErrors(diags) {
			invalid++
		}
	}
	m.check(t)
	c.compile(t)
	c.compileInstalled(t)
	t.Logf("%d policies, %d of them invalid; %d tables that a release cannot hold", len(files), invalid, skipped)
}
