//go:build unix

package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestServeSpecial checks that a server of a folder does not open a file that is not regular.
// A socket cannot be opened, so its type is found by its name.
func TestServeSpecial(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	k := &client{serverRun: &serverRun{root: root}}
	if _, _, err := k.open("s"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v, want %v", err, fs.ErrPermission)
	}
}
