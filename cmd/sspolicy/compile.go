package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

type compileCmd struct {
	Lang    string         `enum:"go,c" required:"" placeholder:"go|c" help:"The language to write: go or c."`
	Package string         `default:"policy" help:"The package of the Go file (${default})."`
	LWS     schema.Version `name:"lws" complete:"versions" default:"${lws}" placeholder:"VERSION" help:"The lws version that the C file is for (${default})."`
	Entry   string         `placeholder:"NAME" help:"The name of the C table that lws is given (PREFIXstatic_policy_entry)."`
	Prefix  string         `default:"_ss_" help:"What the names in the C file begin with (${default}). Policies of one program need one each."`
	Overlay []string       `sep:"none" placeholder:"FRAGMENT" help:"Lay this over the policy first. May be repeated."`
	Output  string         `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Header  string         `placeholder:"HEADER" help:"Split the C file: tables in OUT, their declaration in this file."`
	Depfile string         `placeholder:"FILE" help:"Write what OUT is made from, as a rule for make."`
	Depend  string         `short:"M" placeholder:"D" help:"-MD is --depfile with the name of OUT, but .d at the end."`
	Check   bool           `help:"Write nothing, but fail if what would be written is not what is there."`
	Size    bool           `help:"Print how many bytes the C tables take. They are written only if there is an OUT."`
	File    string         `arg:"" help:"The policy."`
}

// Help is what "sspolicy compile --help" adds.
func (compileCmd) Help() string {
	return "A policy with errors in it is refused, as by lint; but what only the parser of lws would take amiss, and no table has to do with, is a warning. Warnings are shown on standard error."
}

// Validate checks the command line.
func (c *compileCmd) Validate() error {
	if !token.IsIdentifier(c.Package) || c.Package == "_" {
		return fmt.Errorf("--package: %q is no name for a Go package", c.Package)
	}
	if err := codegen.CheckSymbols(c.Prefix, ""); err != nil {
		return fmt.Errorf("--prefix: %w", err)
	}
	if err := codegen.CheckSymbols("", c.Entry); err != nil {
		return fmt.Errorf("--entry: %w", err)
	}
	if c.Depend != "" && c.Depend != "D" {
		return fmt.Errorf("-M%s: there is -MD alone", c.Depend)
	}
	stdout := c.Output == "" || c.Output == "-"
	for _, o := range []struct {
		flag       string
		used       bool
		onlyC, out bool // what it takes
	}{
		{"--entry", c.Entry != "", true, false},
		{"--header", c.Header != "", true, true},
		{"--size", c.Size, true, false},
		{"--depfile", c.Depfile != "", false, true},
		{"-MD", c.Depend != "", false, true},
		{"--check", c.Check, false, true},
	} {
		switch {
		case o.used && o.onlyC && c.Lang != "c":
			return fmt.Errorf("%s is for --lang c", o.flag)
		case o.used && o.out && stdout:
			return fmt.Errorf("%s needs --output with a file", o.flag)
		}
	}
	taken := map[string]string{}
	for _, f := range append([]string{c.File}, c.Overlay...) {
		taken[identity(f)] = "what is compiled"
	}
	taken["-"] = ""
	for _, o := range []struct{ flag, file string }{
		{"--output", c.Output}, {"--header", c.Header}, {"--depfile", c.depfileName()},
	} {
		if what := taken[identity(o.file)]; what != "" {
			return fmt.Errorf("%s: %s is %s", o.flag, o.file, what)
		}
		if identity(o.file) != "-" {
			taken[identity(o.file)] = "what " + o.flag + " writes"
		}
	}
	if c.depfileName() != "" {
		for _, f := range append([]string{c.File, c.Output, c.Header}, c.Overlay...) {
			if strings.ContainsFunc(f, func(r rune) bool { return r < ' ' || r == 0x7f || r == ';' || r == '=' }) {
				return fmt.Errorf("--depfile: the name %q can't stand in a makefile", f)
			}
		}
	}
	return nil
}

// depfileName returns the name of the file for make, if there is to be one.
func (c *compileCmd) depfileName() string {
	if c.Depfile == "" && c.Depend != "" {
		return strings.TrimSuffix(c.Output, filepath.Ext(c.Output)) + ".d"
	}
	return c.Depfile
}

// Run executes the command.
func (c *compileCmd) Run(p *program) error {
	doc, policy, err := p.compile(c.File, c.Overlay, lint.Options{LWS: []schema.Version{c.LWS}}, schema.Warning)
	if err != nil {
		return err
	}
	outputs, err := c.outputs(doc, policy)
	if err != nil {
		return err
	}
	if c.Size {
		if err := c.size(p.stdout, doc, policy); err != nil || c.Output == "" {
			return err
		}
	}
	if c.Check {
		return check(outputs)
	}
	// The output comes last: where it is, all that it needs is there.
	for _, o := range slices.Concat(outputs[1:], c.depfile(outputs), outputs[:1]) {
		if err := p.output(o.file, write(string(o.text))); err != nil {
			return err
		}
	}
	return nil
}

// A generatedFile is a file to write, by the name that the user has given.
type generatedFile struct {
	file string
	text []byte
}

// outputs returns the files in the language.
func (c *compileCmd) outputs(doc *schema.Document, policy *policy.Policy) ([]generatedFile, error) {
	// Where the policy is must not matter: a build in another folder gives
	// the same file.
	source := filepath.Base(displayName(c.File))
	for _, f := range c.Overlay {
		source += ", with " + filepath.Base(displayName(f))
	}
	sum := sha256.Sum256([]byte(doc.String()))
	hash := hex.EncodeToString(sum[:])
	var out, header bytes.Buffer
	if c.Lang == "go" {
		err := codegen.Go(&out, policy, codegen.GoOptions{Source: source, SHA256: hash, Version: version(), Package: c.Package})
		return []generatedFile{{c.Output, out.Bytes()}}, err
	}
	o := c.cOptions()
	o.Source, o.SHA256 = source, hash
	if c.Header == "" {
		err := codegen.C(&out, policy, o)
		return []generatedFile{{c.Output, out.Bytes()}}, c.cError(err)
	}
	include, err := filepath.Rel(filepath.Dir(c.Output), c.Header)
	if err != nil {
		include = c.Header
	}
	err = codegen.CWithHeader(&header, &out, filepath.ToSlash(include), policy, o)
	return []generatedFile{{c.Output, out.Bytes()}, {c.Header, header.Bytes()}}, c.cError(err)
}

func (c *compileCmd) cOptions() codegen.COptions {
	return codegen.COptions{Version: version(), Target: codegen.Target(c.LWS.Line()), Prefix: c.Prefix, Entry: c.Entry}
}

// cError makes findings of errors in writing C: the policy says what the tables
// can't hold.
func (c *compileCmd) cError(err error) error {
	if err != nil {
		err = &exitError{exitFindings, fmt.Errorf("%s: %w", displayName(c.File), err)}
	}
	return err
}

// size prints the footprint.
func (c *compileCmd) size(w io.Writer, doc *schema.Document, policy *policy.Policy) error {
	size, err := codegen.CFootprint(policy, c.cOptions())
	if err != nil {
		return c.cError(err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "bytes for lws %v\t%d bit\t%d bit\t\n", c.LWS.Line(), size[0].Bits, size[1].Bits)
	for _, row := range []struct {
		kind  string
		bytes func(codegen.Footprint) int
	}{
		{"strings", func(f codegen.Footprint) int { return f.Strings }},
		{"certificates and keys", func(f codegen.Footprint) int { return f.DER }},
		{"backoff tables", func(f codegen.Footprint) int { return f.Numbers }},
		{"structs", func(f codegen.Footprint) int { return f.Structs }},
		{"total", codegen.Footprint.Total},
		{"pointers, in structs", func(f codegen.Footprint) int { return f.Pointers }},
		{"the JSON", func(codegen.Footprint) int { return len(doc.String()) }},
	} {
		fmt.Fprintf(t, "%s\t%d\t%d\t\n", row.kind, row.bytes(size[0]), row.bytes(size[1]))
	}
	return t.Flush()
}

// check fails if a file is not as it would be written.
func check(outputs []generatedFile) error {
	var stale []error
	for _, o := range outputs {
		switch have, err := os.ReadFile(o.file); {
		case errors.Is(err, os.ErrNotExist):
			stale = append(stale, fmt.Errorf("%s: does not exist", o.file))
		case err != nil:
			return fileError(o.file, err)
		case !codegen.Equal(have, o.text):
			stale = append(stale, fmt.Errorf("%s is stale: compile it again", o.file))
		}
	}
	if stale == nil {
		return nil
	}
	return &exitError{exitFindings, errors.Join(stale...)}
}

// depfile returns the rule for make, if there is to be one.
func (c *compileCmd) depfile(outputs []generatedFile) []generatedFile {
	file := c.depfileName()
	if file == "" {
		return nil
	}
	var b strings.Builder
	for i, o := range outputs {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(makeName(o.file))
	}
	b.WriteByte(':')
	var sources []string
	for _, f := range append([]string{c.File}, c.Overlay...) {
		if f != "-" && !slices.Contains(sources, makeName(f)) {
			sources = append(sources, makeName(f))
			b.WriteString(" " + makeName(f))
		}
	}
	b.WriteByte('\n')
	for _, s := range sources { // so that make does not mind if one is gone
		b.WriteString("\n" + s + ":\n")
	}
	return []generatedFile{{file, []byte(b.String())}}
}

// makeName returns the name of a file as it is written in a makefile.
func makeName(file string) string {
	var b strings.Builder
	for i := range len(file) {
		switch ch := file[i]; ch {
		case '$':
			b.WriteString("$$")
		case ' ', '\t', '#', ':':
			// A backslash before it would be taken for the one that quotes it.
			for j := i - 1; j >= 0 && file[j] == '\\'; j-- {
				b.WriteByte('\\')
			}
			b.WriteByte('\\')
			b.WriteByte(ch)
		default:
			b.WriteByte(ch)
		}
	}
	return b.String()
}

// compile compiles a policy with its fragments, unless there are errors in it.
// What is found is reported on standard error if it is as bad as show.
func (p *program) compile(file string, fragments []string, o lint.Options, show schema.Severity) (*schema.Document, *policy.Policy, error) {
	base, err := p.document(file)
	if err != nil {
		return nil, nil, err
	}
	above, err := p.documents(fragments)
	if err != nil {
		return nil, nil, err
	}
	compiled, err := sspolicy.Compile(base, o, above...)
	var found []schema.Diagnostic
	if refused, ok := errors.AsType[*sspolicy.Error](err); ok {
		found = refused.Diagnostics
	} else if err != nil {
		return nil, nil, err
	} else {
		found = compiled.Diagnostics
	}
	found = slices.DeleteFunc(found, func(d schema.Diagnostic) bool { return d.Severity < show })
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return nil, nil, err
	}
	if compiled == nil {
		return nil, nil, errFindings
	}
	return compiled.Document, compiled.Policy, nil
}
