package explain

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	for name, want := range map[string]string{
		"forward-reference": "## What lws does", "port": "C member: port", "retry.conceal": "65535 means no limit",
		"CONNECTED": "State 5.", "LWSSSCS_ALL_RETRIES_FAILED": "State 9.",
	} {
		if got := Explain(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q does not contain %q", name, got, want)
		}
	}
	if got := Explain("nothing"); got != "" {
		t.Errorf("unknown name: %q", got)
	}
	for _, name := range Names() {
		if Explain(name) == "" {
			t.Errorf("%s: no description", name)
		}
	}
}

// TestGenerated checks that the generated files are current.
func TestGenerated(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"internal/explain", "runtime/policy", "docs/rules", "docs/faults"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("../../runtime/policy/states.go")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "runtime/policy/states.go"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "gen")
	if out, err := exec.Command("go", "build", "-o", bin, "./gen").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	gen := exec.Command(bin)
	gen.Dir = filepath.Join(dir, "internal/explain")
	if out, err := gen.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compare := func(rel string) {
		want, _ := os.ReadFile(filepath.Join(dir, rel))
		got, _ := os.ReadFile(filepath.Join("../..", rel))
		if string(want) != string(got) {
			t.Errorf("%s is stale: run make generate", rel)
		}
	}
	compare("internal/explain/states.txt")
	compare("docs/keys.md")
	for _, folder := range []string{"docs/rules", "docs/faults"} {
		want, _ := filepath.Glob(filepath.Join(dir, folder, "*.md"))
		for _, f := range want {
			compare(folder + "/" + filepath.Base(f))
		}
		if got, _ := filepath.Glob("../../" + folder + "/*.md"); len(got) != len(want) {
			t.Errorf("%s has %d pages, want %d", folder, len(got), len(want))
		}
	}
}
