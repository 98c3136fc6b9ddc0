package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/breaking"
)

// compareDocs compares a file in docs with what it should hold, or writes it.
func compareDocs(t *testing.T, name, want string) {
	t.Helper()
	file := "../../docs/" + name
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != want {
		t.Errorf("%s differs (%v): run make update", file, err)
	}
}

// TestDocsGraph checks that docs/graph.svg is what the command draws.
func TestDocsGraph(t *testing.T) {
	var got, stderr bytes.Buffer
	if code := run([]string{"graph", "../../fixtures/station.json"}, strings.NewReader(""), &got, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	compareDocs(t, "graph.svg", strings.ReplaceAll(got.String(), "../../fixtures/", ""))
}

// TestDocsBreaking checks that docs/breaking.md has all rules.
func TestDocsBreaking(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Breaking changes\n\nThese are the rules of [`sspolicy breaking`](see.md#what-breaks). Their IDs are stable.\n")
	var category breaking.Category
	for _, r := range breaking.Rules() {
		if r.Category != category {
			category = r.Category
			fmt.Fprintf(&b, "\n## %s\n\n| rule | change | why it matters |\n|---|---|---|\n", category)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.ID, r.Summary, r.Why)
	}
	compareDocs(t, "breaking.md", b.String())
}
