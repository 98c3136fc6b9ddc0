package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// TestRunErrors checks that the demo fails if sspolicy does not give the expected results,
// and that it cleans up. A script of cmd/sspolicy runs the whole demo.
func TestRunErrors(t *testing.T) {
	for _, test := range []struct {
		name     string
		sspolicy func(w io.Writer, args ...string) int
		want     string
	}{
		{"rejects the valid policy", func(io.Writer, ...string) int { return 1 },
			"Validate its shape: sspolicy validate: the exit code is 1, not 0"},
		{"accepts the broken policy", func(io.Writer, ...string) int { return 0 },
			"Lint a variant with a misspelt key, and trust stores defined too late: sspolicy lint: the exit code is 0, not 1"},
		{"finds only one of two mistakes", func(w io.Writer, args ...string) int {
			if args[len(args)-1] != "broken.json" {
				return 0
			}
			fmt.Fprintln(w, `did you mean "opportunistic"? [unknown-key]`)
			return 1
		}, `sspolicy lint: "[forward-reference]" is not in the output`},
	} {
		t.Run(test.name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			before, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			err = Run(io.Discard, "", test.sspolicy)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want %s", err, test.want)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if after, err := os.Getwd(); after != before {
				t.Errorf("the working directory is %s, %v, was %s", after, err, before)
			}
		})
	}
}

func TestRunOutsideCheckout(t *testing.T) {
	t.Chdir(t.TempDir())
	err := Run(io.Discard, "", nil)
	if err == nil || !strings.Contains(err.Error(), "is not in a checkout of sspolicy") {
		t.Errorf("the error is %v", err)
	}
}
