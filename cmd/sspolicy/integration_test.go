package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The problem matcher takes every line that tells a finding apart, and no
// other.
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
	var out, stderr bytes.Buffer
	if code := run([]string{"lint", "../../fixtures/readme-example.json"}, nil, &out, &stderr); code != exitFindings {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		if m := re.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			got = append(got, strings.Join([]string{m[1], m[2], m[3], m[4], m[6]}, " "))
		}
	}
	want := strings.Count(out.String(), "../../fixtures/readme-example.json:")
	notes := strings.Count(out.String(), ": note: ")
	if len(got) == 0 || len(got) != want-notes {
		t.Errorf("%d lines match, want %d:\n%s", len(got), want-notes, out.String())
	}
	if want := "../../fixtures/readme-example.json 18 1 error legacy-form"; !strings.Contains(strings.Join(got, "\n"), want) {
		t.Errorf("%q does not have %q", got, want)
	}
}

// What the pre-commit hooks run is a command line that sspolicy takes.
func TestPreCommitHooks(t *testing.T) {
	text, err := os.ReadFile("../../.pre-commit-hooks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	entries := regexp.MustCompile(`(?m)^  entry: sspolicy (.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(entries) != 2 {
		t.Fatalf("%d entries, want 2", len(entries))
	}
	for _, m := range regexp.MustCompile(`(?m)^  files: (.*)$`).FindAllStringSubmatch(string(text), -1) {
		pattern := regexp.MustCompile(m[1])
		for name, want := range map[string]bool{
			"ss-policy.json": true, "config/secure_streams.policy.staging.json": true, "device-sspolicy.json": true,
			"policy.json": false, "iam/access-policy.json": false, "policies/package.json": false,
		} {
			if got := pattern.MatchString(name); got != want {
				t.Errorf("%s matches %s: %v, want %v", m[1], name, got, want)
			}
		}
	}
	for _, e := range entries {
		policy := t.TempDir() + "/policy.json"
		if err := os.WriteFile(policy, []byte("{\n  \"s\": [\n    {\n      \"a\": {\"endpoint\": \"example.com\", \"port\": 80, \"http_method\": \"GET\", \"http_url\": \"x\"}\n    }\n  ]\n}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		var out, stderr bytes.Buffer
		if code := run(append(strings.Fields(e[1]), policy), nil, &out, &stderr); code != exitOK {
			t.Errorf("%s: exit %d: %s%s", e[1], code, out.String(), stderr.String())
		}
	}
}

// The completion scripts are ones that their shells take, and bash completes
// by its own.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out, stderr bytes.Buffer
		if code := run([]string{"completion", shell}, nil, &out, &stderr); code != exitOK {
			t.Fatalf("%s: exit %d: %s", shell, code, stderr.String())
		}
		for _, word := range []string{"lint", "fail-level", "warning", "5.0", "forward-reference"} {
			if !strings.Contains(out.String(), word) {
				t.Errorf("%s: %q is missing", shell, word)
			}
		}
		if shell != "bash" {
			continue // they are not on every machine
		}
		for line, want := range map[string]string{
			"sspolicy li":              "lint",
			"sspolicy lint --fail":     "--fail-level",
			"sspolicy compile --lang ": "go c",
			"sspolicy compile --lws ":  "4.1 4.2 4.3 4.4 4.5 5.0",
			"sspolicy explain forward": "forward-reference",
		} {
			script := out.String() + "\nCOMP_WORDS=(" + line
			if strings.HasSuffix(line, " ") {
				script += "''"
			}
			script += "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _sspolicy; echo \"${COMPREPLY[@]}\""
			got, err := exec.Command("bash", "-c", script).CombinedOutput()
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%q completes to %q, %v, want %q", line, got, err, want)
			}
		}
	}
}

// The man page has every command, and nothing that roff would take for a
// request of its own.
func TestMan(t *testing.T) {
	var out, stderr bytes.Buffer
	if code := run([]string{"man"}, nil, &out, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(TH|SH|SS|TP|PP|br|B|I)\b`).MatchString(line) {
			t.Errorf("a request that is none of ours: %q", line)
		}
	}
	for _, want := range []string{".SS lint", ".SS compile", "all is well", `\-\-fail\-level`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
}
