package release

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	goLine    = regexp.MustCompile(`(?m)^go (\d+\.\d+)(\.\d+)?$`)
	newName   = regexp.MustCompile(`(?m)^pkg ([\w/]+), func (\w+)`)
	selectors = regexp.MustCompile(`\b[a-z][a-z0-9]*\.[A-Z]\w*`)
)

// The version of Go in go.mod is not newer than the runtime needs: it uses a name of the
// standard library that came with it. go vet reports names that are newer. All modules
// have the same version.
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
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	api, err := os.ReadFile(path.Join(strings.TrimSpace(string(root)), "api", "go"+versions[0]+".txt"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this distribution of Go has no lists of its API")
	} else if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range newName.FindAllSubmatch(api, -1) {
		names[path.Base(string(m[1]))+"."+string(m[2])] = true
	}
	files, err := filepath.Glob("../../runtime/*.go")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range selectors.FindAll(text, -1) {
			if names[string(s)] {
				used[string(s)] = true
			}
		}
	}
	if len(used) == 0 {
		t.Errorf("package runtime uses no name that came with Go %s: go.mod can name an older version", versions[0])
	}
	t.Logf("package runtime needs Go %s for %q", versions[0], slices.Sorted(maps.Keys(used)))
}
