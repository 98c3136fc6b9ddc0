package http_test

import (
	"fmt"
	"os"
	goruntime "runtime"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	// The roots of the operating system are, for these tests, one authority of
	// their own. They are read at the first use of TLS.
	system = newAuthority("the operating system's")
	if f, err := os.CreateTemp("", "roots*.pem"); err == nil {
		f.Write(system.pem())
		f.Close()
		os.Setenv("SSL_CERT_FILE", f.Name())
		os.Setenv("SSL_CERT_DIR", "/nonexistent")
		defer os.Remove(f.Name())
	}
	code := m.Run()
	if code == 0 {
		if left := leaked(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines that are still there when all tests
// are done, beside the one that asks. Those about to end get time to do so.
func leaked() string {
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		buf = buf[:goruntime.Stack(buf, true)]
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
