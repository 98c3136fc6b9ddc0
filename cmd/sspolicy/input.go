package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/internal/readfile"
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

// readBase reads and parses a policy that a fragment or a configuration names, which is
// not necessarily a file that the user trusts.
func readBase(file string) (*schema.Document, error) {
	text, err := readfile.Regular(file, schema.MaxSize)
	if err != nil {
		return nil, fileError(file, err)
	}
	return schema.Parse(file, text), nil
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

// base returns the base policy of a document that is a fragment according to its
// x-sspolicy or the nearest configuration. It returns nil for a policy, and for a
// fragment for any policy.
func (p *program) base(d *schema.Document) (*schema.Document, error) {
	c, err := p.nearest(d)
	if err != nil {
		return nil, err
	}
	return project.FragmentOf(d, c).Read(c, readBase)
}

// assemble reads a policy and fragments. A fragment in place of the policy stands
// for its base with the fragment applied.
func (p *program) assemble(file string, fragments []string) (*schema.Document, []*schema.Document, error) {
	d, err := p.document(file)
	if err != nil {
		return nil, nil, err
	}
	above, err := p.documents(fragments)
	if err != nil {
		return nil, nil, err
	}
	base, err := p.base(d)
	if err != nil || base == nil {
		return d, above, err
	}
	return base, slices.Insert(above, 0, d), nil
}

// layers reads a policy and fragments for a command that writes or signs the policy as it
// is in the file. Such a command refuses a fragment in its place: alone, a fragment that
// happens to be valid has none of the settings of its base.
func (p *program) layers(file string, fragments []string) (*schema.Document, []*schema.Document, error) {
	d, err := p.document(file)
	if err != nil {
		return nil, nil, err
	}
	c, err := p.nearest(d)
	if err != nil {
		return nil, nil, err
	}
	if f := project.FragmentOf(d, c); f != nil && f.Base != "" {
		name, base := harmless(displayName(file)), harmless(f.Base)
		return nil, nil, usage("%s is a fragment over %s (%v): use %[2]s with --overlay %[1]s, or the policy that \"sspolicy overlay %[1]s\" prints", name, base, f.At)
	}
	above, err := p.documents(fragments)
	return d, above, err
}

// fileError adds the name of the file, as the user wrote it, to an error.
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
	return readfile.Any(file, schema.MaxSize)
}

// maxLarge is the maximum size in bytes of a program, a compiled policy or a payload. Tests
// lower it.
var maxLarge int64 = 256 << 20

// loadKeyPair is [tls.LoadX509KeyPair] of files up to the limit for a policy.
func loadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}
