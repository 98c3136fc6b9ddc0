package readfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(string, int64) ([]byte, error){"Any": Any, "Regular": Regular} {
		if text, err := read(file, 5); string(text) != "12345" || err != nil {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		if text, err := read(file, 4); text != nil || err == nil || err.Error() != "read "+file+": larger than 4 bytes, the limit" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		if _, err := read(filepath.Join(dir, "none"), 5); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := read(dir, 5); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAll(t *testing.T) {
	if text, err := All(strings.NewReader("12345"), 5); string(text) != "12345" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	endless := strings.NewReader(strings.Repeat("x", 3<<20))
	if _, err := All(endless, 1<<20); err == nil || err.Error() != "larger than 1 MiB, the limit" || endless.Len() < 1<<20 {
		t.Errorf("%v; %d bytes left", err, endless.Len())
	}
}
