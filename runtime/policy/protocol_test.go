package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestProtocols compares the table of protocols with one that lists them by
// their names.
func TestProtocols(t *testing.T) {
	type facts struct {
		constant, dir  string
		named          bool
		http, messages bool
		port, tlsPort  uint16
	}
	want := map[string]facts{
		"h1":         {"ProtocolH1", "http", true, true, false, 80, 443},
		"h2":         {"ProtocolH2", "http", true, true, false, 80, 443},
		"h3":         {"ProtocolH3", "h3", true, true, false, 80, 443},
		"ws":         {"ProtocolWS", "ws", true, false, true, 80, 443},
		"mqtt":       {"ProtocolMQTT", "mqtt", true, false, true, 1883, 8883},
		"raw":        {"ProtocolRaw", "raw", true, false, false, 0, 0},
		"file":       {"ProtocolFile", "file", false, false, false, 0, 0},
		"local_sink": {"ProtocolSink", "sink", false, false, true, 0, 0},
		"_lws_smd":   {"ProtocolSMD", "smd", false, false, true, 0, 0},
		"proxied":    {"ProtocolProxied", "sspc", false, false, true, 0, 0},
	}
	if len(want) != NumProtocols {
		t.Errorf("NumProtocols is %d, want %d", NumProtocols, len(want))
	}
	for p := range Protocol(NumProtocols) {
		w, ok := want[p.String()]
		if !ok {
			t.Errorf("protocol %d is %q", uint8(p), p)
			continue
		}
		if got := (facts{p.Constant(), p.Dir(), p.Named(), p.IsHTTP(), p.HasMessages(), p.DefaultPort(false), p.DefaultPort(true)}); got != w {
			t.Errorf("%v is %+v, want %+v", p, got, w)
		}
		if got, ok := ParseProtocol(p.String()); ok != w.named || ok && got != p {
			t.Errorf("ParseProtocol(%q) is %v, %v", p, got, ok)
		}
	}
}

// TestProtocolUnknown checks a number and names that are not in the table.
func TestProtocolUnknown(t *testing.T) {
	unknown := Protocol(NumProtocols)
	if unknown.String() != "protocol(10)" || unknown.Constant() != "" || unknown.Dir() != "" || unknown.Named() ||
		unknown.IsHTTP() || unknown.HasMessages() || unknown.DefaultPort(true) != 0 {
		t.Errorf("an unknown protocol is %v, %q, %q", unknown, unknown.Constant(), unknown.Dir())
	}
	for _, name := range []string{"", "H1", "h1 ", "http", "protocol(9)"} {
		if p, ok := ParseProtocol(name); ok {
			t.Errorf("ParseProtocol(%q) is %v", name, p)
		}
	}
}

// TestProtocolConstants checks that Constant returns the names of the constants,
// in order.
func TestProtocolConstants(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "protocol.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := Protocol(0)
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Protocol") {
			if p.Constant() != spec.Names[0].Name {
				t.Errorf("the constant of %v is %q, want %q", p, p.Constant(), spec.Names[0].Name)
			}
			p++
		}
		return true
	})
	if int(p) != NumProtocols {
		t.Errorf("%d constants, want %d", p, NumProtocols)
	}
}

// TestProtocolDirs checks that each Dir is a package of that name, with a function
// New.
func TestProtocolDirs(t *testing.T) {
	for p := range Protocol(NumProtocols) {
		files, err := filepath.Glob(filepath.Join("..", p.Dir(), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if f.Name.Name != p.Dir() {
				t.Errorf("%s is of package %s", name, f.Name.Name)
			}
			for _, d := range f.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "New" {
					found = true
				}
			}
		}
		if !found {
			t.Errorf("runtime/%s, the package of %v, has no function New", p.Dir(), p)
		}
	}
}
