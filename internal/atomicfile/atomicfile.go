// Package atomicfile replaces files atomically: a reader, and the file after a
// crash, has either the old content or the new one.
package atomicfile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Prefix begins the names of temporary files, which are in the folder of the file
// that they replace.
const Prefix = ".sspolicy-"

// Hook, if not nil, is called after each step of a write. It is for tests that
// interrupt a write.
var Hook func(step string)

func hook(step string) {
	if Hook != nil {
		Hook(step)
	}
}

// Write writes data to a file. An existing file keeps its permissions; a new one
// gets perm before umask. A symbolic link stays, and the file that it names is
// replaced. Write rejects anything except a regular file. The error is a
// [*fs.PathError].
//
// On Windows it fails while another process has the file open, unless that process
// shares deletion.
func Write(name string, data []byte, perm fs.FileMode) error {
	return pathError(name, write(name, data, perm, true))
}

// WritePrivate is like [Write], for a file that only its owner can read, even if
// others could read the replaced file. Windows has no such permission: there the
// folder's access control applies.
func WritePrivate(name string, data []byte) error {
	return pathError(name, write(name, data, 0o600, false))
}

func write(name string, data []byte, perm fs.FileMode, keepPerm bool) (err error) {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	info, err := os.Lstat(name)
	exists := err == nil
	if exists && !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	dir := filepath.Dir(name)
	temp := filepath.Join(dir, tempPrefix(name)+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
		}
	}()
	hook("create")
	if exists && keepPerm {
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	hook("write")
	if err := f.Sync(); err != nil {
		return err
	}
	hook("sync")
	if err := f.Close(); err != nil {
		return err
	}
	hook("close")
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	hook("rename")
	if err := syncFolder(dir); err != nil {
		return err
	}
	hook("sync folder")
	return nil
}

// tempPrefix begins the names of the temporary files of one file. A hash keeps them
// short enough for every file system.
func tempPrefix(name string) string {
	sum := sha256.Sum256([]byte(filepath.Base(name)))
	return Prefix + hex.EncodeToString(sum[:4]) + "-"
}

// Clean removes the temporary files that killed writers of a file have left behind.
// No write of the file may be in progress.
func Clean(name string) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	dir, prefix := filepath.Dir(name), tempPrefix(name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return pathError(name, err)
	}
	var failed error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			failed = errors.Join(failed, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return failed
}

// syncFolder makes a rename in a folder durable. Windows has no such call.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // a folder that can be written but not read
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // not on all file systems
		return err
	}
	return nil
}

// pathError replaces the name of the temporary file with that of the file.
func pathError(name string, err error) error {
	if err == nil {
		return nil
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	} else if le, ok := errors.AsType[*os.LinkError](err); ok {
		err = le.Err
	}
	return &fs.PathError{Op: "write", Path: name, Err: err}
}
