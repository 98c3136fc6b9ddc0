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

// sizePairs are pairs of equivalent programs in testdata, hand-written and by policy, with
// the permitted size difference.
var sizePairs = []struct {
	byHand, byPolicy string
	mostKB           int64
}{
	{"nethttp", "policy", 400},
	{"tlsconn", "rawtls", 700},
	{"mqttconn", "mqttonly", 900},
	{"netconn", "rawonly", 1850}, // of which 876 for a blank import of crypto/tls
}

// TestSize checks how much a policy adds to the size of a program, and that it links
// nothing that only other policies need.
func TestSize(t *testing.T) {
	for _, p := range sizePairs {
		_, byHand := build(t, p.byHand, "-ldflags=-s -w")
		_, byPolicy := build(t, p.byPolicy, "-ldflags=-s -w")
		more := (byPolicy - byHand) >> 10
		t.Logf("stripped: %s %d KB, %s %d KB: %+d KB", p.byHand, byHand>>10, p.byPolicy, byPolicy>>10, more)
		if more > p.mostKB {
			t.Errorf("%s is %d KB larger than %s, more than %d", p.byPolicy, more, p.byHand, p.mostKB)
		}
	}
	for _, p := range []struct {
		program         string
		linked, missing []string
	}{
		{"rawtls", []string{" crypto/tls.(*Conn).clientHandshake\n"}, []string{" net/http.", " crypto/tls.(*Conn).serverHandshake\n", "/raw.listen\n"}},
		{"rawonly", []string{"sspolicy/runtime.NewContext\n"}, []string{" net/http.", " crypto/tls.(*Conn).clientHandshake\n", "/transport.pool\n"}},
	} {
		file, _ := build(t, p.program)
		symbols := run(t, "tool", "nm", file)
		for _, s := range p.linked {
			if !strings.Contains(symbols, s) {
				t.Errorf("%s does not contain %q", p.program, s)
			}
		}
		for _, s := range p.missing {
			if strings.Contains(symbols, s) {
				t.Errorf("%s contains %q", p.program, s)
			}
		}
	}
	if deps := strings.Fields(run(t, "list", "-deps", "./testdata/rawonly")); slices.Contains(deps, "net/http") {
		t.Error("a program without the HTTP transport depends on net/http")
	}
}

// BenchmarkSize reports the sizes of the programs in testdata.
func BenchmarkSize(b *testing.B) {
	for _, k := range []struct {
		name  string
		flags []string
	}{{"default", nil}, {"stripped", []string{"-ldflags=-s -w"}}} {
		for _, p := range sizePairs {
			b.Run(p.byPolicy+"/"+k.name, func(b *testing.B) {
				var byHand, byPolicy int64
				for b.Loop() {
					_, byHand = build(b, p.byHand, k.flags...)
					_, byPolicy = build(b, p.byPolicy, k.flags...)
				}
				kb := func(n int64) float64 { return float64(n) / 1024 }
				b.ReportMetric(kb(byHand), "KB-by-hand")
				b.ReportMetric(kb(byPolicy), "KB-policy")
				b.ReportMetric(kb(byPolicy-byHand), "KB-more")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
