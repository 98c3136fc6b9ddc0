package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/secure-streams/sspolicy/internal/atomicfile"
)

// output writes to a file, or to standard output if file is "". It replaces the
// file atomically.
func (p *program) output(file string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	return p.put(file, b.Bytes())
}

// checkExtension reports an output file whose extension belongs to another format.
func checkExtension(file, format string, formats map[string]string) error {
	if want, ok := formats[strings.ToLower(filepath.Ext(file))]; ok && want != format {
		return fmt.Errorf("--output: %s would hold %s: add --format %s, or change the extension", file, format, want)
	}
	return nil
}

// put is like output, for a text.
func (p *program) put(file string, text []byte) error {
	if file == "" || file == "-" {
		_, err := p.stdout.Write(text)
		return err
	}
	if err := replace(file, text); err != nil {
		return fileError(file, err)
	}
	return nil
}

// putPrivate is put of a text that only the owner of the file may read.
func (p *program) putPrivate(file string, text []byte) error {
	if file == "" || file == "-" {
		return p.put(file, text)
	}
	if err := atomicfile.WritePrivate(file, text); err != nil {
		return fileError(file, err)
	}
	return nil
}

func replace(file string, text []byte) error {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return overwrite(file, text) // such as a device, which cannot be replaced
	}
	if dir := filepath.Dir(file); !isThere(dir) {
		return fmt.Errorf("the folder %s does not exist: make it first", dir)
	}
	return atomicfile.Write(file, text, 0o644)
}

func isThere(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

func overwrite(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// identity returns a canonical name of a file, whichever name or link is used: an
// output must not overwrite a file that another name stands for.
func identity(file string) string {
	if file == "" || file == "-" {
		return "-"
	}
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	if target, err := filepath.EvalSymlinks(file); err == nil {
		return target
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(file)); err == nil {
		return filepath.Join(dir, filepath.Base(file))
	}
	return file
}
