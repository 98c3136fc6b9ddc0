package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var goLine = regexp.MustCompile(`(?m)^go (\d+\.\d+)(\.\d+)?$`)

// TestOldestGo checks that the version of Go in go.mod is not newer than necessary: package
// runtime uses a name of the standard library that came with it, or the module requires one that needs
// it. All modules have the same version.
func TestOldestGo(t *testing.T) {
	var versions []string
	err := filepath.WalkDir("../..", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "build" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2):
			return filepath.SkipDir
		case d.Name() != "go.mod":
			return nil
		}
		text, err := os.ReadFile(file)
		m := goLine.FindSubmatch(text)
		if err == nil && m == nil {
			err = errors.New(file + " has no line for go")
		}
		if err == nil && !slices.Contains(versions, string(m[1])) {
			versions = append(versions, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(versions) != 1 {
		t.Fatalf("the modules have the versions %q of Go, want one", versions)
	}
	older := older(t, versions[0])
	mod := filepath.Join(t.TempDir(), "go.mod")
	for from, to := range map[string]string{"go.mod": mod, "go.sum": strings.TrimSuffix(mod, ".mod") + ".sum"} {
		text, err := os.ReadFile(filepath.Join("../..", from))
		if err == nil {
			err = os.WriteFile(to, goLine.ReplaceAll(text, []byte("go "+older+".0")), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	vet := exec.Command("go", "vet", "-modfile="+mod, "-mod=mod", "-stdversion", "./runtime")
	vet.Dir = "../.."
	out, vetErr := vet.CombinedOutput()
	text, err := os.ReadFile(mod)
	switch m := goLine.FindSubmatch(text); {
	case err != nil || m == nil:
		t.Fatal(err, string(text))
	case string(m[1]) != older:
		t.Logf("a module that this one requires needs Go %s", m[1])
	case vetErr == nil:
		t.Errorf("package runtime needs nothing that came with Go %s: go.mod can name an older version", versions[0])
	case !strings.Contains(string(out), "requires go"+versions[0]+" or later"):
		t.Errorf("%v\n%s", vetErr, out)
	}
}

// older returns the version of Go before another one.
func older(t *testing.T, version string) string {
	t.Helper()
	major, minor, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(minor)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s.%d", major, n-1)
}
