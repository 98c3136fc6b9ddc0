package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/secure-streams/sspolicy/schema"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string
	}{
		{`{}`, nil},
		{`{ # c
		"$schema": "x", "lws": ["4.3", "5.0.0"], "fail-level": "error", "cert-warn": 14,
		"severity": {"unused-definition": "off", "unknown-key": "warning", "policy2c-*": "off", "*": "info"},
		"exclude": ["/build/", "!keep.json"],
		"ignore": [{"rule": "lax-syntax", "paths": ["old/*.json"], "reason": "not ours"}] }`, nil},
		{"\ufeff" + `{ // one
		/* two, */ "lws": [ "4.3", /* three */ ], # four
		"$schema": "https://x/#y,]", }`, nil},
		{`{"with": ["policy2c"]}`, nil},
		{`{"with": ["policy3c"]}`, []string{`1:11 unknown group "policy3c": want one of policy2c`}},
		{`{"lsw": []}`, []string{`1:2 unknown setting "lsw": want one of $schema, cert-warn`}},
		{`{"lws": "4.3"}`, []string{`1:9 want an array, got a string`}},
		{`{"lws": ["9.9", 1]}`, []string{`1:10 unknown lws version "9.9"`, `1:17 want a string, got a number`}},
		{`{"fail-level": "fatal"}`, []string{`1:16 "fatal" is not one of error, warning`}},
		{`{"cert-warn": -1, "cert-warn": 1}`, []string{`1:15 cert-warn must be a number of days`, `1:19 duplicate setting "cert-warn"`}},
		{`{"cert-warn": 1.5}`, []string{`1:15 cert-warn must be a number of days`}},
		{`{"severity": {"unknown-kye": "error", "syntax": "off", "bad-value": "loud", "polcy2c-*": "off"}}`,
			[]string{`1:15 unknown rule "unknown-kye": did you mean unknown-key?`, `1:39 rule syntax cannot be`, `1:69 "loud" is not one of`, `1:77 no rule matches "polcy2c-*"`}},
		{`{"ignore": [{"rule": "bad-value"}, {"rule": "x", "paths": ["["], "reason": "r"}]}`,
			[]string{`1:13 missing reason`, `1:45 unknown rule "x"`, `1:60 malformed pattern "["`}},
		{`{"severity": {"": "off"}}`, []string{`1:15 unknown rule ""`}},
		{`{"severity": {"corp/a": "error", "corp/*": "off"}, "rules": [{"id": "corp/a", "target": "stream", "expression": "stream.tls", "lws": ">=4.3 <5.0",
		  "message": "${stream.name} is plain", "at": "tls", "why": "x", "severity": "info", "examples": {"good": [{}], "bad": []}}]}`, nil},
		{`{"severity": {"corp/b": "error"}, "rules": [{"id": "corp/a", "target": "stream", "expression": "true"}]}`, []string{`1:15 unknown rule "corp/b": did you mean corp/a?`}},
		{`{"rules": [{"id": "a", "target": "stream", "expression": "true"}]}`, []string{`1:19 "a" is not an id such as`}},
		{`{"rules": [{"id": "corp/a"}]}`, []string{`1:12 missing expression`, `1:12 missing target`}},
		{`{"rules": [{"id": "corp/a", "target": "streem", "expression": "true"}]}`, []string{`1:39 unknown target "streem": want one of stream, `}},
		{`{"rules": [{"id": "corp/a", "target": "stream", "expression": "'\"' == \"\u00e4\ud83d\ude00\" && stream.tsl"}]}`, []string{`1:104 undefined field 'tsl': did you mean tls? (rule)`}},
		{`{"rules": [{"id": "corp/a", "target": "stream", "expression": "true", "message": "x ${stream.x}"}]}`, []string{`1:93 undefined field 'x' (rule)`}},
		{`{"rules": [{"id": "corp/a", "target": "stream", "expression": "true", "at": "x"}]}`, []string{`1:77 "x" is not a key of a streamtype (rule)`}},
		{`{"rules": [{"id": "corp/a", "target": "stream", "expression": "true", "lws": ">6.0"}]}`, []string{`1:78 unknown lws version "6.0"`}},
		{`{"rules": [{"id": "corp/a", "target": "stream", "expression": "true"}, {"id": "corp/a", "target": "stream", "expression": "true"}]}`, []string{`1:79 duplicate rule corp/a`}},
		{`{"ignore": [}`, []string{`1:13 not JSON: invalid character '}'`}},
		{`{"lws": ["4.3"] "x": 1}`, []string{`1:17 not JSON: invalid character '"' after object key:value pair`}},
		{`{"lws": [,]}`, []string{`1:10 not JSON: invalid character ','`}},
		{`{,}`, []string{`1:2 not JSON`}},
		{`{/* }`, []string{`1:5 not JSON: unexpected end`}},
		{``, []string{`1:1 not JSON: unexpected end of JSON input`}},
		{`[]`, []string{`1:1 want an object, got an array`}},
	} {
		_, found := Parse("c.json", []byte(test.text))
		for i, d := range found {
			got := strings.TrimPrefix(d.Span.String(), "c.json:") + " " + d.Message
			if i >= len(test.want) || !strings.HasPrefix(got, strings.TrimSuffix(test.want[i], " (rule)")) {
				t.Errorf("%s: found %s, want %q", test.text, got, test.want)
			}
			if strings.Contains(got, "policy is") || strings.Contains(got, "lws refuses") {
				t.Errorf("%s: %s is about policies", test.text, got)
			}
		}
		if len(found) < len(test.want) {
			t.Errorf("%s: not found: %q", test.text, test.want[len(found):])
		}
		// The published schema agrees where it can express the rule.
		s := jsonschema.MustCompileString("config.schema.json", JSONSchema)
		var v any
		if err := json.Unmarshal(Standardize([]byte(test.text)), &v); err == nil {
			all := strings.Join(test.want, " ")
			beyond := strings.Contains(all, "rule") || strings.Contains(all, "known") || strings.Contains(all, "duplicate")
			if err := s.Validate(v); !beyond && (err != nil) != (len(test.want) > 0) {
				t.Errorf("%s: the schema says %v", test.text, err)
			}
		}
	}
}

// FuzzParse checks that no configuration panics, and that text that is not JSON after
// standardization is an error.
func FuzzParse(f *testing.F) {
	f.Add(`{ // c
	"severity": {"policy2c-*": "off",}, # x
	"ignore": [{"rule": "bad-value", "paths": ["a/**"], "reason": "r"}], /* y */ }`)
	f.Add(`{"$schema": "\"//`)
	f.Fuzz(func(t *testing.T, text string) {
		plain := Standardize([]byte(text))
		if len(plain) != len(text) || strings.Count(string(plain), "\n") != strings.Count(text, "\n") {
			t.Fatal("standardize moves text")
		}
		c, found := Parse("c.json", []byte(text))
		if !json.Valid(plain) && len(found) == 0 {
			t.Fatal("accepted, but not JSON")
		}
		c.Excludes("a/b.json")
		c.Apply([]schema.Diagnostic{{Rule: "bad-value", Span: schema.Span{Source: &schema.Source{Name: "a/b.json"}}}})
	})
}

// TestApply checks that a file is found by its path relative to the configuration, however
// it is named.
func TestApply(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "old", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	const text = `{"severity": {"header-*": "error", "header-case": "info", "header-colon": "off"},
	  "exclude": ["/new/", "!/new/y.json", "*.tmp.json"],
	  "ignore": [{"rule": "unknown-*", "paths": ["old/*.json", "x.json"], "reason": "r"}]}`
	for _, at := range []struct{ wd, config, prefix string }{
		{".", Name, ""}, {".", Name, "./"}, {".", "./" + Name, dir + "/"}, {".", filepath.Join(dir, Name), ""},
		{"old", "../" + Name, "../"}, {"old/sub", filepath.Join(dir, Name), "../../"}, {"old/sub", "../../" + Name, "../../old/../"},
	} {
		t.Chdir(filepath.Join(dir, at.wd))
		c, found := Parse(at.config, []byte(text))
		if len(found) > 0 {
			t.Fatal(found)
		}
		var got []string
		for _, name := range []string{"old/a.json", "new/a.json", "new/x.json"} {
			s := &schema.Source{Name: at.prefix + name}
			for _, rule := range []string{"header-case", "header-colon", "header-prefix", "unknown-key"} {
				for _, d := range c.Apply([]schema.Diagnostic{{Rule: rule, Severity: schema.Warning, Span: schema.Span{Source: s}}}) {
					got = append(got, name+" "+d.Rule+" "+d.Severity.String())
				}
			}
		}
		want := []string{
			"old/a.json header-case info", "old/a.json header-prefix error",
			"new/a.json header-case info", "new/a.json header-prefix error", "new/a.json unknown-key warning",
			"new/x.json header-case info", "new/x.json header-prefix error",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%+v: %s", at, d)
		}
		for name, want := range map[string]bool{"new/a.json": true, "new/y.json": true, "old/a.json": false, "old/a.tmp.json": true} {
			if got := c.Excludes(at.prefix + name); got != want {
				t.Errorf("%+v: %s is excluded: %v", at, name, got)
			}
		}
	}
}

// TestWith checks that a severity for a rule or a group enables it, and that one for a
// pattern does not.
func TestWith(t *testing.T) {
	for text, want := range map[string][]string{
		`{}`:                                    nil,
		`{"with": ["policy2c"]}`:                {"policy2c"},
		`{"severity": {"policy2c": "warning"}}`: {"policy2c"},
		`{"severity": {"policy2c-*": "warning"}}`:  nil,
		`{"severity": {"policy2c": "off"}}`:        nil,
		`{"severity": {"policy2c-order": "info"}}`: {"policy2c-order"},
	} {
		c, found := Parse(Name, []byte(text))
		if len(found) > 0 || !slices.Equal(c.With, want) {
			t.Errorf("%s: with %q, %v", text, c.With, found)
		}
	}
}

// TestFirm checks that a pattern does not change the rules that cannot be
// suppressed.
func TestFirm(t *testing.T) {
	c, found := Parse(Name, []byte(`{"severity": {"*": "off"}}`))
	if len(found) > 0 {
		t.Fatal(found)
	}
	s := &schema.Source{Name: "a.json"}
	kept := c.Apply([]schema.Diagnostic{
		{Rule: "syntax", Severity: schema.Error, Span: schema.Span{Source: s}},
		{Rule: "bad-value", Severity: schema.Error, Span: schema.Span{Source: s}},
	})
	if len(kept) != 1 || kept[0].Rule != "syntax" {
		t.Errorf("kept %v", kept)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"repo/.git", "repo/a/b", "repo/c"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{Name, "repo/a/" + Name} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for from, want := range map[string]string{"repo/a/b": "repo/a/" + Name, "repo/a": "repo/a/" + Name, "repo/c": "", ".": Name} {
		got, err := Find(filepath.Join(dir, from))
		if err != nil {
			t.Fatal(err)
		}
		if want != "" {
			want = filepath.Join(dir, want)
		}
		if got != want {
			t.Errorf("from %s: %q, want %q", from, got, want)
		}
	}
}

// TestRawOffset checks that an offset in the text of a string is at the same
// character of the JSON.
func TestRawOffset(t *testing.T) {
	for _, raw := range []string{`""`, `"a"`, `"\"\\\n\/x"`, `"\u00e4ä\ud83d\ude00😀z"`, `"\ud83d\u0041\ud800"`} {
		text := schema.Unquote(raw)
		for i := range text {
			at := rawOffset(raw, i)
			if got := schema.Unquote(raw[:at] + `"`); got != text[:i] {
				t.Errorf("%s: offset %d is at %d, after %q", raw, i, at, got)
			}
		}
	}
}

// TestExamples checks that rules are tested with their examples, at their places in
// the configuration.
func TestExamples(t *testing.T) {
	const text = `{
  "rules": [
    {
      "id": "corp/tls", "target": "stream", "expression": "stream.tls", "message": "${stream.name} is plain", "lws": "<4.3",
      "examples": {
        "good": [ // comment
          {"s": [{"a": {"tls": true}}]},
          {"s": [
            {"b": {"tls": false}}
          ]}
        ],
        "bad": [{"s": [{"a": {}}]}, {}, {"s": [{"a": {"tsl": 1}}]}],
      },
    },
  ],
}`
	c, found := Parse(Name, []byte(text))
	if len(found) > 0 {
		t.Fatal(found)
	}
	var got []string
	for _, o := range c.Rules[0].Test(time.Time{}) {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", o.Name, strings.TrimPrefix(o.At.String(), Name+":"), o.Problem)))
	}
	want := []string{
		"good 1 7:11", "good 2 9:14 the rule finds: b is plain",
		"bad 1 12:17", "bad 2 12:37 the rule finds nothing", `bad 3 12:55 the example has a mistake: `,
	}
	for i, w := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], w) {
			t.Fatalf("outcomes %q, want %q", got, want)
		}
	}
}

// TestLinkedBase checks that a policy under another name is not a fragment for itself.
func TestLinkedBase(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"policy.json", "other.json"} {
		if err := os.WriteFile(file(name), []byte(`{}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("policy.json", file("link.json")); err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{"policy.json", "link.json"} {
		c, wrong := Parse(file(Name), []byte(`{"fragments": [{"paths": ["*.json"], "base": "`+base+`"}]}`))
		if wrong != nil {
			t.Fatal(wrong)
		}
		for name, want := range map[string]bool{"policy.json": false, "link.json": false, "other.json": true, "missing.json": true} {
			if _, _, got := c.Fragment(file(name)); got != want {
				t.Errorf("%s is a fragment of %s: %v", name, base, got)
			}
		}
	}
}

// TestUnmatched checks which patterns have no fragment, and that test files,
// configurations and standard input are no fragments.
func TestUnmatched(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"policy.json", "lab/deep/a.json", "lab/b.test.json", ".git/hidden.json"} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(`{}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("lab", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for pattern, matches := range map[string]bool{
		"**": true, "a.json": true, "lab/": true, "lab/**": true, "/lab/deep/*": true, "link/deep/a.json": true, "./lab/deep": true, "!none": true,
		"lab/*.json": false, "b.test.json": false, "nowhere/*.json": false, "/a.json": false, "hidden.json": false, Name: false,
		"elsewhere.json": true, // which a flag names
	} {
		c, wrong := Parse(filepath.Join(dir, Name), []byte(`{"fragments": [{"paths": ["`+pattern+`"], "base": "policy.json"}]}`))
		if wrong != nil {
			t.Fatal(wrong)
		}
		found := c.Unmatched([]string{"-", filepath.Join(t.TempDir(), "elsewhere.json")})
		if (len(found) == 0) != matches {
			t.Errorf("%s: %v", pattern, found)
		}
		for _, g := range found {
			if g.Span.Text() != `"`+pattern+`"` || g.Severity != schema.Warning {
				t.Errorf("%s: %+v", pattern, g)
			}
		}
	}
	c, _ := Parse(filepath.Join(dir, Name), []byte(`{"fragments": [{"paths": ["**"], "base": ""}]}`))
	for file, want := range map[string]bool{"lab/deep/a.json": true, "lab/b.test.json": false, Name: false} {
		if _, _, got := c.Fragment(filepath.Join(dir, file)); got != want {
			t.Errorf("%s is a fragment: %v", file, got)
		}
	}
	if _, _, ok := c.Fragment("<stdin>"); ok {
		t.Error("standard input is a fragment")
	}
}
