//go:build unix

package readfile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSpecialFiles checks that an endless device is read up to the limit, and that a named
// pipe found by a search is not opened.
func TestSpecialFiles(t *testing.T) {
	if _, err := Any("/dev/zero", 1<<20); err == nil || err.Error() != "read /dev/zero: larger than 1 MiB, the limit" {
		t.Errorf("/dev/zero: %v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/dev/zero", pipe} {
		if _, err := Regular(file, 1<<20); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", file, err)
		}
	}
	go os.WriteFile(pipe, []byte("text"), 0o600)
	if text, err := Any(pipe, 4); string(text) != "text" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
