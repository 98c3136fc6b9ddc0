// Package leaktest finds goroutines that the tests of a package leave behind.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Run runs the tests of a package and returns the exit code: that of the tests, or 1 if
// they passed but left goroutines behind.
func Run(m *testing.M) int {
	code := m.Run()
	if code == 0 {
		if left := leaked(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left:\n%s\n", left)
			code = 1
		}
	}
	return code
}

// leaked returns the stacks of all other goroutines. It waits up to 30 s for them to
// end.
func leaked() string {
	var left []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		left = nil
		for i, g := range strings.Split(string(buf), "\n\n") {
			if i > 0 && !strings.Contains(g, "os/signal.") && !strings.Contains(g, "testing.(*F)") {
				left = append(left, g)
			}
		}
		if left == nil {
			break
		}
	}
	return strings.Join(left, "\n\n")
}
