package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/schema"
)

// validatePool checks the command line for several policies, and sets the names of the
// outputs.
func (c *compileCmd) validatePool() error {
	if len(c.More) == 0 {
		return nil
	}
	for _, o := range []struct {
		flag string
		used bool
	}{{"--entry", c.Entry != ""}, {"--variants", len(c.Variants) > 0}, {"--only", len(c.Only) > 0}} {
		if o.used {
			return fmt.Errorf("%s is for a single policy", o.flag)
		}
	}
	if c.Lang != "c" {
		return errors.New("several policies are for --lang c")
	}
	names := map[string]bool{}
	for _, f := range c.files() {
		if f == "-" {
			return errors.New("standard input has no name for one of several policies")
		}
		name := strings.ToLower(variantName(f)) // macros have it in upper case
		if names[name] {
			return fmt.Errorf("two policies have the name %s", variantName(f))
		}
		names[name] = true
	}
	info, err := os.Stat(c.Output)
	switch folder := err == nil && info.IsDir() || strings.HasSuffix(filepath.ToSlash(c.Output), "/"); {
	case folder && c.Header == "":
		c.Header = filepath.Join(c.Output, "policies.h")
		c.Output = filepath.Join(c.Output, "policies.c")
	case c.Header == "" && c.Output != "" && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("--output: the folder %s does not exist: make it first, or give --header too to write a file", c.Output)
	case c.Header == "" && (c.Output != "" || !c.enabled()):
		return errors.New("several policies need --output with a folder, or --header too")
	}
	return nil
}

// pool returns the files for several policies, and prints the size if requested.
func (c *compileCmd) pool(p *program, show schema.Severity) ([]generatedFile, error) {
	var list []codegen.Variant
	var names []string
	sum := sha256.New()
	source := 0
	for _, f := range c.files() {
		doc, compiled, err := c.compile(p, f, c.Overlay, show)
		if err != nil {
			return nil, err
		}
		hash, err := packedHash(doc)
		if err != nil {
			return nil, err
		}
		_, _ = io.WriteString(sum, hash) // writing to a hash never fails
		source += len(doc.String())
		names = append(names, sourceNames(f, c.Overlay))
		list = append(list, codegen.Variant{Name: variantName(f), Policy: compiled, SHA256: hash})
	}
	o := c.cOptions()
	o.Source, o.SHA256 = strings.Join(names, "; "), hex.EncodeToString(sum.Sum(nil))
	if c.enabled() {
		size, err := codegen.CPoolFootprint(list, o)
		if err != nil {
			return nil, c.cError(err)
		}
		if err := c.sizes(p.stdout, size, source); err != nil || c.Output == "" {
			return nil, err
		}
	}
	var out, header bytes.Buffer
	if err := codegen.CPool(&header, &out, c.include(), list, o); err != nil {
		return nil, c.cError(err)
	}
	return []generatedFile{{c.Output, out.Bytes()}, {c.Header, header.Bytes()}}, nil
}
