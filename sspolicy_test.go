package sspolicy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"
)

const good = `{ "release": "1", "schema-version": 1, "via-socks5": "127.0.0.1:1080",
  "retry": [ { "r": { "backoff": [ 100 ], "conceal": 3 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "x", "retry": "r" } } ] }`

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, text, err string // err is part of the error; "" for none
	}{
		{"good", good, ""},
		{"only lws's parser is affected", strings.ReplaceAll(good, `"a"`, `"a.b"`), ""},
		{"empty", "", "p.json:1:1: "},
		{"not JSON", "no policy", "[not-a-policy]"},
		{"a path", "/etc/passwd", "[not-a-policy]"},
		{"truncated", good[:len(good)-20], "[syntax]"},
		{"wrong type", strings.Replace(good, `"port": 80`, `"port": {}`, 1), "[wrong-type]"},
		{"undefined name", strings.Replace(good, `"retry": "r"`, `"retry": "q"`, 1), "[undefined-reference]"},
		{"two errors", strings.NewReplacer(`"retry": "r"`, `"retry": "q"`, `"port": 80`, `"port": {}`).Replace(good), "[wrong-type] (and 1 more)"},
		{"too large", good + strings.Repeat(" ", schema.MaxSize), "[syntax]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := Parse("p.json", []byte(test.text), Options{})
			loaded, loadErr := Loader("p.json", Options{})([]byte(test.text))
			if test.err == "" {
				if err != nil || loadErr != nil || len(p.Policy.StreamTypes) != 1 || len(loaded.StreamTypes) != 1 {
					t.Fatalf("%v, %v", err, loadErr)
				}
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || p != nil || loaded != nil || !schema.HasErrors(e.Diagnostics) || err.Error() != loadErr.Error() || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v, %v, %v", p, err, loadErr)
			}
		})
	}
}

func TestDiagnostics(t *testing.T) {
	p, err := Parse("p", []byte(strings.ReplaceAll(good, `"a"`, `"a.b"`)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(p.Diagnostics, func(d schema.Diagnostic) bool { return d.Rule == "dotted-name" && d.Severity == schema.Warning }) {
		t.Error(p.Diagnostics)
	}
}

func TestLoadUnreadable(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.json")
	file := filepath.Join(t.TempDir(), "policy.json")
	large := filepath.Join(t.TempDir(), "large.json")
	for name, text := range map[string]string{file: good, large: strings.Repeat(" ", schema.MaxSize+1)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := Load(file, Options{}); err != nil {
		t.Error(p, err)
	}
	if p, err := Load(missing, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(p, err)
	}
	if p, err := Load(file, Options{Overlays: []string{missing}}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(p, err)
	}
	if p, err := Load(large, Options{}); err == nil || !strings.Contains(err.Error(), large) {
		t.Error(p, err)
	}
}

// TestCompile checks that fragments make new policies and leave the old one
// unchanged.
func TestCompile(t *testing.T) {
	p, err := Parse("p.json", []byte(good), Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := runtime.NewContext(p.Policy, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	changed, err := Compile(p.Document, lint.Options{}, schema.Parse("f.json", []byte(`{ "s": [ { "a": { "port": 8080 } } ] }`)))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Overlay(changed.Policy); err != nil {
		t.Fatal(err)
	}
	if st := c.Policy().StreamType("a"); st.Port != 8080 || st.Retry == nil || c.Policy().SOCKS5Proxy == "" || p.Policy.StreamType("a").Port != 80 {
		t.Errorf("%+v", st)
	}
	for _, fragment := range []string{`{ "s": [ { "b": { "port": 1 } } ] }`, `{ "s": [ { "a": { "port": "x" } } ] }`, `{`} {
		if bad, err := Compile(p.Document, lint.Options{}, schema.Parse("f.json", []byte(fragment))); bad != nil || err == nil || !strings.Contains(err.Error(), "f.json:1:") {
			t.Errorf("%s: %v", fragment, err)
		}
	}
}

// TestFilter checks that the caller's filter decides.
func TestFilter(t *testing.T) {
	o := Options{Lint: lint.Options{Filter: func([]schema.Diagnostic) []schema.Diagnostic { return nil }}}
	if _, err := Parse("p", []byte(strings.Replace(good, "http_method", "http_methods", 1)), o); err != nil {
		t.Error(err)
	}
}

// FuzzParse checks that no text panics, and that an accepted policy can be
// executed.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("fixtures/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("p", text, Options{})
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || !schema.HasErrors(e.Diagnostics) {
				t.Fatal(err)
			}
			return
		}
		if schema.HasErrors(p.Diagnostics) {
			t.Fatal(p.Diagnostics)
		}
		c, err := runtime.NewContext(p.Policy, runtime.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range p.Policy.StreamTypes {
			if s, err := c.NewStream(st.Name, runtime.Handlers{}); err == nil {
				t.Errorf("%s needs no transport", s.StreamType().Name)
			}
		}
		c.Close()
	})
}
