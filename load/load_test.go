package load

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"
)

func TestParserRules(t *testing.T) {
	for _, name := range parserRules {
		if !slices.ContainsFunc(rules.All(), func(r *lint.Rule) bool { return r.Name == name }) {
			t.Errorf("there is no rule %s", name)
		}
	}
	if !slices.IsSorted(parserRules) {
		t.Error("the rules are not sorted")
	}
}

const good = `{ "release": "1", "schema-version": 1, "via-socks5": "127.0.0.1:1080",
  "retry": [ { "r": { "backoff": [ 100 ], "conceal": 3 } } ],
  "s": [ { "a": { "endpoint": "example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "x", "retry": "r" } } ] }`

func TestText(t *testing.T) {
	for _, test := range []struct {
		name, text, err string // the rule of the first error; "" if it is accepted
	}{
		{"good", good, ""},
		{"only lws's parser minds", strings.ReplaceAll(good, `"a"`, `"a.b"`), ""},
		{"empty", "", "[syntax]"},
		{"not JSON", "no policy", "[not-a-policy]"},
		{"a path", "/etc/passwd", "[not-a-policy]"},
		{"cut off", good[:len(good)-20], "[syntax]"},
		{"another type", strings.Replace(good, `"port": 80`, `"port": {}`, 1), "[wrong-type]"},
		{"a name that is not defined", strings.Replace(good, `"retry": "r"`, `"retry": "q"`, 1), "[undefined-reference]"},
		{"too large", good + strings.Repeat(" ", schema.MaxSize), "[syntax]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, found := Text("p.json", []byte(test.text), lint.Options{})
			err := Err(found)
			p, ferr := Func("p.json", lint.Options{})([]byte(test.text))
			switch {
			case test.err == "":
				if l == nil || err != nil || ferr != nil || len(l.Policy.StreamTypes) != 1 || len(p.StreamTypes) != 1 {
					t.Fatalf("%v, %v, %v", found, err, ferr)
				}
			case l != nil || p != nil || !errors.Is(err, ErrRefused) || err.Error() != ferr.Error() || !strings.Contains(err.Error(), test.err):
				t.Errorf("%v, %v, %v", l, err, ferr)
			}
		})
	}
}

// TestOverlay: fragments give new policies, and the old one stays.
func TestOverlay(t *testing.T) {
	l, _ := Text("p.json", []byte(good), lint.Options{})
	c, err := runtime.NewContext(l.Policy, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	above, found := l.Overlay(lint.Options{}, schema.Parse("f.json", []byte(`{ "s": [ { "a": { "port": 8080 } } ] }`)))
	if above == nil {
		t.Fatal(Err(found))
	}
	if err := c.Overlay(above.Policy); err != nil {
		t.Fatal(err)
	}
	if st := c.Policy().StreamType("a"); st.Port != 8080 || st.Retry == nil || c.Policy().SOCKS5Proxy == "" || l.Policy.StreamType("a").Port != 80 {
		t.Errorf("%+v", st)
	}
	for _, fragment := range []string{`{ "s": [ { "b": { "port": 1 } } ] }`, `{ "s": [ { "a": { "port": "x" } } ] }`, `{`} {
		if bad, found := l.Overlay(lint.Options{}, schema.Parse("f.json", []byte(fragment))); bad != nil || Err(found) == nil {
			t.Errorf("%s: %v", fragment, found)
		}
	}
}

// TestFilter: the caller's filter is asked before the rules of lws's parser are
// passed over.
func TestFilter(t *testing.T) {
	o := lint.Options{Filter: func([]schema.Diagnostic) []schema.Diagnostic { return nil }}
	if l, found := Text("p", []byte(strings.Replace(good, "http_method", "http_methods", 1)), o); l == nil {
		t.Error(found)
	}
}

// FuzzText: no text makes it panic, and what is accepted can be executed.
func FuzzText(f *testing.F) {
	files, err := filepath.Glob("../fixtures/*.json")
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
		l, found := Text("p", text, lint.Options{})
		if (l == nil) != (Err(found) != nil) {
			t.Fatal(found)
		}
		if l == nil {
			return
		}
		c, err := runtime.NewContext(l.Policy, runtime.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range l.Policy.StreamTypes {
			if s, err := c.NewStream(st.Name, runtime.Handlers{}); err == nil && !strings.HasPrefix(st.Endpoint, "file://") && st.Name != smd.SMDStreamType {
				t.Errorf("%s can be made without a transport", s.StreamType().Name)
			}
		}
		c.Close()
	})
}
