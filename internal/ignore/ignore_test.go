package ignore

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGit compares a tree with the answers of Git itself.
func TestGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is not installed; make test needs it")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(".gitignore", "\ufeff# comment\n\n*.tmp\n!keep.tmp\n/build\nout/\nlab/*.json\na/**/z\ndeep/**\n**/any/x\nblank\\ \ntrailing  \n"+
		"{a,b}\n[ab\n[!c]1\n\\!bang\n\\#hash\nfo?\ncr\r\nmid/dle\nin**side\n/\n!\n[0-9].json\n")
	write("sub/.gitignore", "!c.tmp\n/here\nx*\n!lab/\n")
	names := []string{
		"a.tmp", "keep.tmp", "sub/b.tmp", "sub/c.tmp", "build/x", "sub/build/x", "out/f", "sub/out/f", "lab/a.json", "lab/a/b.json",
		"sub/lab/a.json", "a/z", "a/b/z", "a/b/c/z/f", "deep/f", "deep/g/f", "any/x", "q/any/x", "any/y", "blank ", "blank", "trailing", "{a,b}", "a1", "c1", "b",
		"!bang", "#hash", "foo", "fooo", "cr", "sub/here", "here", "sub/xyz", "sub/y/xyz", "mid/dle", "q/mid/dle", "inside", "in/side", "in-the-side", "1.json", "11.json",
	}
	dirs := map[string]bool{}
	for _, name := range names {
		for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	for _, name := range names {
		if !dirs[name] {
			write(name, "")
		}
	}
	git := func(args ...string) (string, int) {
		c := exec.Command("git", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1")
		out, err := c.Output()
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			return string(out), e.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(out), 0
	}
	git("init", "-q")
	var tree Tree
	for _, name := range names {
		_, code := git("check-ignore", "-q", "--", name)
		if code > 1 {
			t.Fatalf("git check-ignore %s: exit code %d", name, code)
		}
		got, err := tree.Covers(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if want := code == 0; got != want {
			t.Errorf("%q: ignored is %v, Git says %v", name, got, want)
		}
	}
}

func TestAdd(t *testing.T) {
	for _, bad := range []string{"", "/", "!", "[a", "!/"} {
		l := &List{}
		if err := l.Add(bad); err == nil || len(l.patterns) > 0 {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// FuzzMatch checks that no pattern and no name panics, and that a deciding negated pattern
// never ignores.
func FuzzMatch(f *testing.F) {
	for _, p := range []string{"*.json", "a/**/b/", "!x", `\[[`, "{a}", "**"} {
		f.Add(p, "a/x.json")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		l := Parse(text)
		ignored, decided := l.Match(name, false)
		if ignored && !decided {
			t.Fatal("ignored without a pattern")
		}
		if ignored && !l.Covers(name) {
			t.Fatal("a name that is ignored is not covered")
		}
		if only := strings.TrimSpace(text); strings.HasPrefix(only, "!") && !strings.Contains(only, "\n") && ignored {
			t.Fatal("a negated pattern ignores")
		}
	})
}
