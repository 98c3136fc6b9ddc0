package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/secure-streams/sspolicy/schema"
)

// document reads and parses a policy or fragment.
func (p *program) document(file string) (*schema.Document, error) {
	text, err := p.read(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	return schema.Parse(displayName(file), text), nil
}

// documents reads and parses several files.
func (p *program) documents(files []string) (all []*schema.Document, err error) {
	for _, f := range files {
		d, err := p.document(f)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// fileError adds the name of the file, as the user gave it, to an error.
func fileError(file string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", displayName(file), err)
}

func displayName(file string) string {
	if file == "-" {
		return "<stdin>"
	}
	return file
}

// read reads a file, or standard input if its name is "-", up to the limit for a policy.
func (p *program) read(file string) ([]byte, error) {
	if file == "-" {
		return schema.ReadAll(p.stdin)
	}
	return readFile(file)
}

// readFile reads a file up to the limit for a policy.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return schema.ReadAll(f)
}
