package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestWrite(t *testing.T) {
	private := func(name string, data []byte, _ fs.FileMode) error { return WritePrivate(name, data) }
	for _, tt := range []struct {
		name     string
		write    func(string, []byte, fs.FileMode) error
		existing fs.FileMode // 0: none
		want     fs.FileMode
	}{
		{"new", Write, 0, 0o640},
		{"existing", Write, 0o604, 0o604},
		{"read-only", Write, 0o444, 0o444},
		{"private", private, 0, 0o600},
		{"private, existing", private, 0o644, 0o600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && tt.name == "read-only" {
				t.Skip("Windows does not replace a read-only file")
			}
			dir := t.TempDir()
			name, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
			if tt.existing != 0 {
				if err := os.WriteFile(name, []byte("a longer old text"), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(name, tt.existing); err != nil {
					t.Fatal(err)
				}
				if runtime.GOOS != "windows" {
					if err := os.Symlink("file", link); err != nil {
						t.Fatal(err)
					}
					name = link
				}
			}
			if err := tt.write(name, []byte("new"), 0o640); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "file")); string(text) != "new" {
				t.Errorf("read %q, %v", text, err)
			}
			info, err := os.Stat(name)
			if err != nil || runtime.GOOS != "windows" && info.Mode() != tt.want {
				t.Errorf("mode %v, %v, want %v", info.Mode(), err, tt.want)
			}
			if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink == 0 {
				t.Error("the link was replaced")
			}
			checkNoTemp(t, dir)
		})
	}
}

func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]error{
		filepath.Join(dir, "missing", "file"): fs.ErrNotExist,
		dir:                                   nil,
		os.DevNull:                            nil,
	} {
		for _, err := range []error{Write(name, nil, 0o600), WritePrivate(name, nil)} {
			pe, ok := errors.AsType[*fs.PathError](err)
			if !ok || pe.Path != name || want != nil && !errors.Is(err, want) || strings.Contains(err.Error(), Prefix) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	checkNoTemp(t, dir)
}

// TestConcurrent checks that a reader sees one whole text or another.
func TestConcurrent(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not replace an open file")
	}
	name := filepath.Join(t.TempDir(), "file")
	texts := [2][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 200_000)}
	if err := Write(name, texts[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, text := range texts {
		wg.Go(func() {
			for range 20 {
				if err := Write(name, text, 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		text, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(text, texts[0]) && !bytes.Equal(text, texts[1]) {
			t.Fatalf("read %d bytes, %v", len(text), err)
		}
	}
	wg.Wait()
	checkNoTemp(t, filepath.Dir(name))
}

// TestSteps checks that a file is on the disk before it gets its name, and the name
// before Write returns.
func TestSteps(t *testing.T) {
	var steps []string
	Hook = func(step string) { steps = append(steps, step) }
	defer func() { Hook = nil }()
	if err := Write(filepath.Join(t.TempDir(), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(steps, ", "); got != "create, write, sync, close, rename, sync folder" {
		t.Error(got)
	}
}

// TestClean checks that Clean removes what is left of writes of one file alone.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	name, other := filepath.Join(dir, "file"), filepath.Join(dir, "file2")
	for _, file := range []string{name, other, tempPrefix(name) + "A", tempPrefix(name) + "B", tempPrefix(other) + "C"} {
		if filepath.Base(file) == file {
			file = filepath.Join(dir, file)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(name); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
	if err := Clean(filepath.Join(dir, "missing", "file")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func checkNoTemp(t *testing.T, dir string) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(dir, Prefix+"*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
