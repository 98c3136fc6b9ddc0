package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

type packCmd struct {
	Format  string           `enum:"json,c,include" default:"json" help:"json is one line of JSON (the default), c a C header that defines it as the string PREFIXpolicy_json, include a file to include between the braces of a C definition."`
	Prefix  *string          `placeholder:"PREFIX" help:"c: the prefix of the string (_ss_)."`
	LWS     []schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"The lws versions that the policy must work with, 4.1 to 5.0 (${lws})."`
	Overlay []string         `sep:"none" placeholder:"FRAGMENT" help:"Apply this fragment to the policy first. May be repeated."`
	Output  string           `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Check   bool             `help:"Write nothing, and fail if OUT is not up to date."`
	File    string           `arg:"" help:"The policy."`
}

// Help returns the description for "sspolicy pack --help".
func (packCmd) Help() string {
	return "Leaves out comments, white space and line breaks; lws reads the result like the policy. Refuses a policy with errors."
}

// Validate checks the command line.
func (c *packCmd) Validate() error {
	switch {
	case c.Prefix != nil && c.Format != "c":
		return errors.New("--prefix is for --format c")
	case c.Check && (c.Output == "" || c.Output == "-"):
		return errors.New("--check needs --output with a file")
	}
	if err := codegen.CheckSymbols(c.prefix(), ""); err != nil {
		return fmt.Errorf("--prefix: %w", err)
	}
	for _, f := range append([]string{c.File}, c.Overlay...) {
		if identity(f) == identity(c.Output) && identity(f) != "-" {
			return fmt.Errorf("--output: %s is an input", c.Output)
		}
	}
	return nil
}

// prefix returns the prefix of the string.
func (c *packCmd) prefix() string { return valueOr(c.Prefix, "_ss_") }

// Run executes the command.
func (c *packCmd) Run(p *program) error {
	doc, fragments, err := p.layers(c.File, c.Overlay)
	if err != nil {
		return err
	}
	var found []schema.Diagnostic
	if o := (lint.Options{LWS: c.LWS}); len(fragments) == 0 {
		found = lint.Run(doc, rules.All(), o)
	} else {
		r := sspolicy.Overlay(doc, fragments, overlay.Options{}, o)
		doc, found = r.Document, r.Diagnostics
	}
	if schema.HasErrors(found) {
		if err := report.Write(p.stderr, report.FormatText, found); err != nil {
			return err
		}
		return errFindings
	}
	text, err := schema.Pack(doc)
	if err != nil {
		return err
	}
	out := []byte(text)
	if c.Format != "json" {
		if out, err = c.c(doc, text); err != nil {
			return err
		}
	}
	if c.Check {
		return check([]generatedFile{{c.Output, out}})
	}
	return p.put(c.Output, out)
}

// c returns a packed policy as C.
func (c *packCmd) c(doc *schema.Document, text string) ([]byte, error) {
	hash, err := packedHash(doc)
	if err != nil {
		return nil, err
	}
	form := codegen.CJSONHeader
	if c.Format == "include" {
		form = codegen.CJSONInclude
	}
	var b bytes.Buffer
	err = codegen.CJSON(&b, text, form, codegen.COptions{Source: sourceNames(c.File, c.Overlay), SHA256: hash, Version: version(), Prefix: c.prefix()})
	return b.Bytes(), err
}
