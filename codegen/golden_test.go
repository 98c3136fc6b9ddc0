package codegen

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (go test -update accepts it): %s", path, diff)
	}
}

func TestGolden(t *testing.T) {
	for _, file := range policyFiles(t) {
		p := compileFile(t, file)
		base := strings.TrimSuffix(file, ".json")
		var b bytes.Buffer
		if err := Go(&b, p, GoOptions{Source: filepath.Base(file), SHA256: "0123456789abcdef"}); err != nil {
			t.Fatal(err)
		}
		golden(t, base+".go.golden", b.Bytes())
		if filepath.Base(base) == "every-release" {
			b.Reset()
			if err := Go(&b, p, GoOptions{Source: filepath.Base(file), SHA256: "0123456789abcdef", Proxied: true}); err != nil {
				t.Fatal(err)
			}
			golden(t, base+"-proxied.go.golden", b.Bytes())
		}

		b.Reset()
		if err := C(&b, p, COptions{Source: filepath.Base(file), SHA256: "0123456789abcdef"}); err != nil {
			t.Fatal(err)
		}
		golden(t, base+".h.golden", b.Bytes())
	}
	var b bytes.Buffer
	if err := C(&b, compileFile(t, "testdata/every-release.json"), COptions{Target: Target{Major: 4, Minor: 1}, Prefix: "fw_", Entry: "fw_policy"}); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/every-release-4.1.h.golden", b.Bytes())
}
