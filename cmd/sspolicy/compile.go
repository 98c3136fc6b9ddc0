package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"go/token"
	"io"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"
)

type compileCmd struct {
	Lang    string         `enum:"go,c" required:"" placeholder:"go|c" help:"The language to write: go or c."`
	Package string         `default:"policy" help:"The package of the Go file (${default})."`
	LWS     schema.Version `name:"lws" default:"${lws}" placeholder:"VERSION" help:"The lws version that the C file is for (${default})."`
	Overlay []string       `sep:"none" placeholder:"FRAGMENT" help:"Lay this over the policy first. May be repeated."`
	Output  string         `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	File    string         `arg:"" help:"The policy."`
}

// Help is what "sspolicy compile --help" adds.
func (compileCmd) Help() string {
	return "A policy with errors in it is refused, as by lint. Warnings are shown on standard error."
}

// Validate checks the command line.
func (c *compileCmd) Validate() error {
	if !token.IsIdentifier(c.Package) || c.Package == "_" {
		return fmt.Errorf("--package: %q is no name for a Go package", c.Package)
	}
	return nil
}

// Run executes the command.
func (c *compileCmd) Run(p *program) error {
	doc, policy, err := p.compile(c.File, c.Overlay, lint.Options{LWS: []schema.Version{c.LWS}}, schema.Warning)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(doc.String()))
	return p.output(c.Output, func(w io.Writer) error {
		if c.Lang == "c" {
			err := codegen.C(w, policy, codegen.COptions{
				Source: doc.Source.Name, SHA256: hex.EncodeToString(sum[:]), Target: codegen.Target(c.LWS),
			})
			if err != nil { // the policy says what the tables can't hold
				return &exitError{exitFindings, fmt.Errorf("%s: %w", doc.Source.Name, err)}
			}
			return nil
		}
		return codegen.Go(w, policy, codegen.GoOptions{
			Source: doc.Source.Name, SHA256: hex.EncodeToString(sum[:]), Package: c.Package,
		})
	})
}

// compile compiles a policy with its fragments, unless there are errors in it.
// It reports what is as bad as show.
func (p *program) compile(file string, fragments []string, o lint.Options, show schema.Severity) (*schema.Document, *runtime.Policy, error) {
	doc, err := p.sound(file, fragments, o, show)
	if err != nil {
		return nil, nil, err
	}
	policy, found := codegen.Compile(schema.NewPolicy(doc))
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return nil, nil, err
	}
	if schema.HasErrors(found) {
		return nil, nil, errFindings
	}
	return doc, policy, nil
}
