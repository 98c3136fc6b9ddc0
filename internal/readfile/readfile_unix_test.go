//go:build unix

package readfile

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSpecialFiles checks that an endless device is read up to the limit, and that Regular
// opens no other file than a regular one.
func TestSpecialFiles(t *testing.T) {
	if _, err := Any("/dev/zero", 1<<20); err == nil || err.Error() != "read /dev/zero: larger than 1 MiB, the limit" {
		t.Errorf("/dev/zero: %v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s") // cannot be opened, so its type is found by its name
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, file := range []string{"/dev/zero", pipe, socket} {
		if _, err := Regular(file, 1<<20); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", file, err)
		}
	}
	go os.WriteFile(pipe, []byte("text"), 0o600)
	if text, err := Any(pipe, 4); string(text) != "text" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestOpenChecksFile checks that the type is that of the open file, so that a name cannot
// come to mean a pipe between a check and the opening: opening a pipe does not wait.
func TestOpenChecksFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pipe, os.O_RDONLY|noWait, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(pipe); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pipe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkRegular(f.Stat()); !errors.Is(err, ErrNotRegular) {
		t.Errorf("a pipe that a file has replaced: %v", err)
	}
}

// TestLease opens a file on which another process has a lease: the system refuses to open it
// without waiting. Not all file systems have leases, so openFile stands for one.
func TestLease(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	openFile := func(name string, flag int, perm os.FileMode) (*os.File, error) {
		if flag&noWait != 0 {
			return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EWOULDBLOCK}
		}
		return os.OpenFile(name, flag, perm)
	}
	f, err := open(file, os.Stat, openFile)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
