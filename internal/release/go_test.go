package release

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var goLine = regexp.MustCompile(`(?m)^go (\d+\.\d+)(\.\d+)?$`)

// TestOldestGo checks that the version of Go in go.mod is the oldest possible: the packages
// of the runtime import a module that needs it. All modules have the same version.
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
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.GoVersion}}{{end}}{{end}}", "./runtime/...")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m) ` + regexp.QuoteMeta(versions[0]) + `(\.|$)`).Match(out) {
		t.Errorf("no module that package runtime imports needs Go %s, so go.mod may name an older version:\n%s", versions[0], out)
	}
}
