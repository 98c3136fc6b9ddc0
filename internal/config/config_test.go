package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		"severity": {"unused-definition": "off", "unknown-key": "warning"},
		"ignore": [{"rule": "lax-syntax", "paths": ["old/*.json"], "reason": "not ours"}] }`, nil},
		{`{"lsw": []}`, []string{`1:2 unknown setting "lsw": use $schema, cert-warn`}},
		{`{"lws": "4.3"}`, []string{`1:9 this must be an array, not a string`}},
		{`{"lws": ["9.9", 1]}`, []string{`1:10 unknown lws version "9.9"`, `1:17 this must be a string, not a number`}},
		{`{"fail-level": "fatal"}`, []string{`1:16 "fatal" is not one of error, warning`}},
		{`{"cert-warn": -1, "cert-warn": 1}`, []string{`1:15 cert-warn must be a number of days`, `1:19 "cert-warn" is set twice`}},
		{`{"cert-warn": 1.5}`, []string{`1:15 cert-warn must be a number of days`}},
		{`{"severity": {"unknown-kye": "error", "syntax": "off", "bad-value": "loud"}}`,
			[]string{`1:15 unknown rule "unknown-kye": did you mean unknown-key?`, `1:39 the rule syntax cannot be`, `1:69 "loud" is not one of`}},
		{`{"ignore": [{"rule": "bad-value"}, {"rule": "x", "paths": ["["], "reason": "r"}]}`,
			[]string{`1:13 a reason is missing`, `1:45 unknown rule "x"`, `1:60 invalid pattern "["`}},
		{`{"ignore": [}`, []string{`1:13 "]" is missing`}},
		{`[]`, []string{`1:1 a policy is a JSON object`}},
	} {
		_, diags := Parse("c.json", []byte(test.text))
		for i, d := range diags {
			got := strings.TrimPrefix(d.Span.String(), "c.json:") + " " + d.Message
			if i >= len(test.want) || !strings.HasPrefix(got, test.want[i]) {
				t.Errorf("%s: found %s, want %q", test.text, got, test.want)
			}
		}
		if len(diags) < len(test.want) {
			t.Errorf("%s: missing: %q", test.text, test.want[len(diags):])
		}
		// The published schema agrees, except about rules, versions and duplicates.
		s := jsonschema.MustCompileString("config.schema.json", JSONSchema)
		if d := schema.Parse("c.json", []byte(test.text)); !schema.HasErrors(d.Syntax) {
			err := s.Validate(schema.Plain(&d.Root))
			want := strings.Join(test.want, " ")
			beyond := strings.Contains(want, "unknown rule") || strings.Contains(want, "unknown lws version") || strings.Contains(want, "twice")
			if !beyond && (err != nil) != (len(test.want) > 0) {
				t.Errorf("%s: the schema gives %v", test.text, err)
			}
		}
	}
}

func TestApply(t *testing.T) {
	dir := t.TempDir()
	c, diags := Parse(filepath.Join(dir, Name), []byte(`{"severity":{"bad-value":"info","bad-length":"off"},"ignore":[{"rule":"unknown-key","paths":["old/*.json","x.json"],"reason":"r"}]}`))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	var got []string
	for _, name := range []string{"old/a.json", "new/a.json", "new/x.json"} {
		s := &schema.Source{Name: filepath.Join(dir, name)}
		for _, rule := range []string{"bad-value", "bad-length", "unknown-key"} {
			for _, d := range c.Apply([]schema.Diagnostic{{Rule: rule, Severity: schema.Error, Span: schema.Span{Source: s}}}) {
				got = append(got, name+" "+d.Rule+" "+d.Severity.String())
			}
		}
	}
	want := []string{"old/a.json bad-value info", "new/a.json bad-value info", "new/a.json unknown-key error", "new/x.json bad-value info"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
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
