package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// TestProblemMatcher checks that the problem matcher matches the line of each finding,
// whatever its rule, and no other line.
func TestProblemMatcher(t *testing.T) {
	text, err := os.ReadFile("../../problem-matcher.json")
	if err != nil {
		t.Fatal(err)
	}
	var matcher struct {
		ProblemMatcher []struct {
			Pattern []struct{ Regexp string }
		}
	}
	if err := json.Unmarshal(text, &matcher); err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile(matcher.ProblemMatcher[0].Pattern[0].Regexp)
	d := schema.Parse("a b.json", []byte("{\n  \"s\": 1\n}\n"))
	at := d.Root.Members()[0].Value.Span
	for _, r := range rules.All() {
		found := []schema.Diagnostic{{
			Rule: r.Name, Severity: r.Severity, Span: at, Message: "what is [wrong]",
			Related: []schema.Related{{Span: at, Message: "here"}},
			Fixes:   []schema.Fix{{Message: "write 2"}},
		}}
		var out bytes.Buffer
		if err := report.Write(&out, report.FormatText, found); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			if m := re.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				got = append(got, strings.Join(m[1:], "|"))
			}
		}
		if want := "a b.json|2|8|" + r.Severity.String() + "|what is [wrong]|" + r.Name; len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", r.Name, got, want)
		}
	}
}

// TestPreCommitHooks checks that the hooks check and format policies, and ignore other JSON
// files.
func TestPreCommitHooks(t *testing.T) {
	text, err := os.ReadFile("../../.pre-commit-hooks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("files:")) {
		t.Error("the hooks choose files by name")
	}
	entries := regexp.MustCompile(`(?m)^  entry: sspolicy (.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(entries) != 2 {
		t.Fatalf("%d entries, want 2", len(entries))
	}
	t.Chdir(t.TempDir())
	files := map[string]string{
		"policy.json":     "{\n  \"s\": [\n    {\n      \"a\": {\"endpoint\": \"example.com\", \"port\": 80, \"http_method\": \"GET\", \"http_url\": \"index.html\"}\n    }\n  ]\n}\n",
		"iam-policy.json": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`,
		"package.json":    `{"name": "x", "policy": {}}`,
		"list.json":       `[]`,
	}
	var names []string
	for name, text := range files {
		names = append(names, name)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		var out, stderr bytes.Buffer
		if code := run(append(strings.Fields(e[1]), names...), nil, &out, &stderr); code != exitOK {
			t.Errorf("%s: exit %d: %s%s", e[1], code, out.String(), stderr.String())
		}
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		if changed := string(got) != want; changed != (name == "policy.json") {
			t.Errorf("%s: changed is %v", name, changed)
		}
	}
}

// TestMan checks that the man page has every command, and no text that roff would interpret
// as a request.
func TestMan(t *testing.T) {
	var out, stderr bytes.Buffer
	if code := run([]string{"man"}, nil, &out, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(TH|SH|SS|TP|PP|br|B|I)\b`).MatchString(line) {
			t.Errorf("unexpected request %q", line)
		}
	}
	for _, want := range []string{".SS lint", ".SS compile", "success", `\-\-fail\-level`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// TestFixturesAreFormatted checks that readme-example.json and ticker.json are
// copies of lws's own text.
func TestFixturesAreFormatted(t *testing.T) {
	var out bytes.Buffer
	run([]string{"fmt", "--check", "../../fixtures"}, nil, &out, &out)
	if want := "../../fixtures/readme-example.json\n../../fixtures/ticker.json\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
