// Package readfile reads files of bounded size into memory.
package readfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// A TooLargeError is returned when the data exceeds the limit.
type TooLargeError struct {
	Limit int64 // in bytes
}

func (e *TooLargeError) Error() string {
	if n := e.Limit; n%(1<<20) != 0 {
		return fmt.Sprintf("larger than %d bytes, the limit", n)
	}
	return fmt.Sprintf("larger than %d MiB, the limit", e.Limit>>20)
}

// ErrNotRegular is returned when a file is a folder, a named pipe or a device.
var ErrNotRegular = errors.New("not a regular file")

// All reads r to its end. It reads at most one byte beyond limit. The text is nil only
// if it is too large.
func All(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	if f, ok := r.(fs.File); ok {
		if info, err := f.Stat(); err == nil && info.Size() <= limit {
			b.Grow(int(info.Size()) + bytes.MinRead)
		}
	}
	_, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err == nil && int64(b.Len()) > limit {
		return nil, &TooLargeError{limit}
	}
	return b.Bytes(), err
}

// Any reads a file that a user has named. It may be a pipe or a device, for which
// Any waits. The error is an [*fs.PathError].
func Any(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := All(f, limit)
	return text, pathError(name, err)
}

// Open opens a file that must be regular, since its name was found by a search or another
// program opens it too. It does not wait for the writer of a named pipe. The error is an
// [*fs.PathError], with ErrNotRegular for anything but a regular file.
func Open(name string) (*os.File, error) { return open(name, os.Stat, os.OpenFile) }

// OpenIn is like [Open], for a file in a folder.
func OpenIn(root *os.Root, name string) (*os.File, error) {
	return open(name, root.Stat, root.OpenFile)
}

func open(name string, stat func(string) (fs.FileInfo, error), openFile func(string, int, fs.FileMode) (*os.File, error)) (*os.File, error) {
	// Opening and closing a pipe would kill its writer, and devices act on it.
	if err := checkRegular(stat(name)); err != nil {
		return nil, pathError(name, err)
	}
	f, err := openFile(name, os.O_RDONLY|noWait, 0)
	if errors.Is(err, syscall.EAGAIN) { // a process, such as a file server, must end its lease first
		f, err = openFile(name, os.O_RDONLY, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := checkRegular(f.Stat()); err != nil { // the name may refer to another file by now
		f.Close()
		return nil, pathError(name, err)
	}
	return f, nil
}

func checkRegular(info fs.FileInfo, err error) error {
	if err == nil && !info.Mode().IsRegular() {
		return ErrNotRegular
	}
	return err
}

// Regular reads a file that [Open] opens. The error is an [*fs.PathError].
func Regular(name string, limit int64) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := All(f, limit)
	return text, pathError(name, err)
}

// pathError adds the name of the file to an error.
func pathError(name string, err error) error {
	if err == nil {
		return nil
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe
	}
	return &fs.PathError{Op: "read", Path: name, Err: err}
}
