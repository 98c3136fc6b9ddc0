package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
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

// fileError says which file an error is about, by the name that the user has
// given.
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

func (p *program) read(file string) ([]byte, error) {
	if file == "-" {
		return schema.ReadAll(p.stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return schema.ReadAll(f)
}

// overlay lays fragments over a policy. What is wrong with a fragment is
// reported on w.
func (p *program) overlay(w io.Writer, base *schema.Document, fragments []string) (*schema.Document, error) {
	var above []*schema.Document
	for _, f := range fragments {
		d, err := p.document(f)
		if err != nil {
			return nil, err
		}
		above = append(above, d)
	}
	result, found := overlay.Apply(base, above...)
	if err := report.Write(w, report.FormatText, found); err != nil {
		return nil, err
	}
	if result == nil {
		return nil, errFindings
	}
	return result, nil
}

// sound reads a policy with its fragments, and refuses one with errors in it.
// What the lint finds is reported on standard error if it is as bad as show.
func (p *program) sound(file string, fragments []string, o lint.Options, show schema.Severity) (*schema.Document, error) {
	doc, err := p.document(file)
	if err != nil {
		return nil, err
	}
	if doc, err = p.overlay(p.stderr, doc, fragments); err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(lint.Run(doc, o), func(d schema.Diagnostic) bool { return d.Severity < show })
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return nil, err
	}
	if schema.HasErrors(found) {
		return nil, errFindings
	}
	return doc, nil
}
