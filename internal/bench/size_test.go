package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// build builds a program of testdata and returns its file and size.
func build(t testing.TB, name string, flags ...string) (file string, size int64) {
	t.Helper()
	file = filepath.Join(t.TempDir(), name)
	run(t, append(append([]string{"build", "-trimpath"}, flags...), "-o", file, "./testdata/"+name)...)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, info.Size()
}

// run runs the go command and returns its output.
func run(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sizes are the sizes of the programs in testdata, in bytes.
type sizes struct{ byHand, byPolicy, withoutHTTP int64 }

// buildAll builds the programs in testdata. It returns their sizes and the file of the one
// without HTTP.
func buildAll(t testing.TB, flags ...string) (s sizes, withoutHTTP string) {
	_, s.byHand = build(t, "nethttp", flags...)
	_, s.byPolicy = build(t, "policy", flags...)
	withoutHTTP, s.withoutHTTP = build(t, "rawonly", flags...)
	return s, withoutHTTP
}

// TestSize checks how much an h1 policy adds to a program, and that a program without the
// HTTP transport does not contain net/http.
func TestSize(t *testing.T) {
	s, _ := buildAll(t, "-ldflags=-s -w")
	t.Logf("stripped: by hand %d KB, by policy %d KB: %+d KB; without HTTP %d KB",
		s.byHand>>10, s.byPolicy>>10, (s.byPolicy-s.byHand)>>10, s.withoutHTTP>>10)
	if more := s.byPolicy - s.byHand; more > 400<<10 {
		t.Errorf("a policy adds %d KB to a program, more than 400", more>>10)
	}
	if deps := strings.Fields(run(t, "list", "-deps", "./testdata/rawonly")); slices.Contains(deps, "net/http") {
		t.Error("a program without the HTTP transport depends on net/http")
	}
	raw, _ := build(t, "rawonly")
	symbols := run(t, "tool", "nm", raw)
	for s := range strings.SplitSeq(symbols, "\n") {
		if strings.Contains(s, " net/http.") {
			t.Errorf("a program without the HTTP transport contains %s", s)
			break
		}
	}
	if !strings.Contains(symbols, "sspolicy/runtime.NewContext") {
		t.Error("go tool nm does not list NewContext")
	}
}

// BenchmarkSize reports the sizes of the programs in testdata.
func BenchmarkSize(b *testing.B) {
	for _, k := range []struct {
		name  string
		flags []string
	}{{"default", nil}, {"stripped", []string{"-ldflags=-s -w"}}} {
		b.Run(k.name, func(b *testing.B) {
			var s sizes
			for b.Loop() {
				s, _ = buildAll(b, k.flags...)
			}
			kb := func(n int64) float64 { return float64(n) / 1024 }
			b.ReportMetric(kb(s.byHand), "KB-net/http")
			b.ReportMetric(kb(s.byPolicy), "KB-policy")
			b.ReportMetric(kb(s.byPolicy-s.byHand), "KB-more")
			b.ReportMetric(kb(s.withoutHTTP), "KB-without-http")
			b.ReportMetric(0, "ns/op")
		})
	}
}
