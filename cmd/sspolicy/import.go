package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/schema"
)

// tableFlags are the flags of commands that read tables of lws.
type tableFlags struct {
	Symbol string          `placeholder:"SYMBOL" help:"The head of the list of streamtypes (_ss_static_policy_entry, or that of policy2c)."`
	LWS    *schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"The lws version of the tables, if they do not contain it."`
}

// options returns the options of the reader.
func (f *tableFlags) options() codegen.ELFOptions {
	o := codegen.ELFOptions{Symbol: f.Symbol}
	if f.LWS != nil {
		o.Targets = []codegen.Target{codegen.Target(f.LWS.Line())}
	}
	return o
}

// readELF returns the readings of an ELF file.
func (f *tableFlags) readELF(file string) ([]codegen.Reading, error) {
	text, err := readfile.Any(file, maxLarge)
	if err != nil {
		return nil, fileError(file, err)
	}
	return f.named(file)(codegen.ReadELF(text, f.options()))
}

// readC returns the readings of tables in C source.
func (f *tableFlags) readC(file string) ([]codegen.Reading, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fileError(file, err)
	}
	return f.named(file)(codegen.ReadC(context.Background(), strings.Fields(cmp.Or(os.Getenv("CC"), "cc")), file, f.options()))
}

// named returns a function that turns an error into a finding about the file.
func (f *tableFlags) named(file string) func([]codegen.Reading, error) ([]codegen.Reading, error) {
	return func(r []codegen.Reading, err error) ([]codegen.Reading, error) {
		if err != nil {
			err = &exitError{exitFindings, fmt.Errorf("%s: %w", file, err)}
		}
		return r, err
	}
}

type importCmd struct {
	ELF string `name:"elf" placeholder:"FILE" help:"Read the tables in this program, library or object file."`
	tableFlags
	Output string `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	File   string `arg:"" optional:"" help:"C source with the tables: a .c file, or a header that defines them."`
}

// Help returns the description for "sspolicy import --help".
func (importCmd) Help() string {
	return "Reads tables that compile --lang c or lws's policy2c wrote, for any lws version. C source is compiled with the C compiler that the environment variable CC names (cc). Tables have no names for backoff schemes, so these are generated."
}

// Validate checks the command line.
func (c *importCmd) Validate() error {
	switch {
	case (c.ELF == "") == (c.File == ""):
		return errors.New("want either a C file or --elf with a file")
	case c.Output != "" && c.Output != "-" && identity(c.Output) == identity(c.ELF+c.File):
		return fmt.Errorf("--output: %s is the input", c.Output)
	}
	return nil
}

// Run executes the command.
func (c *importCmd) Run(p *program) error {
	read, file := c.readC, c.File
	if c.ELF != "" {
		read, file = c.readELF, c.ELF
	}
	r, err := read(file)
	if err != nil {
		return err
	}
	if len(r) > 1 {
		var versions []string
		for _, x := range r {
			versions = append(versions, x.Target.String())
		}
		return &exitError{exitFindings, fmt.Errorf("%s: the tables mean one policy for lws %s, and another for lws %s: give the version with --lws",
			file, strings.Join(versions[:len(versions)-1], ", "), versions[len(versions)-1])}
	}
	return p.output(c.Output, write(codegen.JSON(r[0].Policy)))
}
