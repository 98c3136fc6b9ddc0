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

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

type compileCmd struct {
	tableOptions
	sizeFlags
	Overlay  []string `sep:"none" placeholder:"FRAGMENT" help:"Apply this fragment to the policy first. May be repeated."`
	Variants []string `placeholder:"FRAGMENT" help:"Write tables for the policy with each of these fragments too, for tests. Go: in OUT_variants.go, which is built only with the tag sspolicy_variants. C: in OUT_NAME.c, and a list of them in OUT_variants.h. The name is that of the fragment."`
	Output   string   `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Depfile  string   `placeholder:"FILE" help:"Write the dependencies of OUT to this file, as a rule for make."`
	Depend   string   `short:"M" placeholder:"D" help:"-MD is --depfile with the name of OUT, with the extension .d."`
	Check    bool     `help:"Write nothing, and fail if OUT is not up to date."`
	File     string   `arg:"" help:"The policy."`
	More     []string `arg:"" optional:"" help:"C: more policies, whose tables go into the same files and share equal parts. OUT is a folder for policies.c and policies.h, or a file with --header. Names begin with PREFIX and the name of the file."`
}

// Help returns the description for "sspolicy compile --help".
func (compileCmd) Help() string {
	return "Refuses a policy with errors. Errors that affect only lws's JSON parser are warnings here. Warnings are shown on standard error."
}

// Validate checks the command line.
func (c *compileCmd) Validate() error {
	if name := c.goPackage(); !token.IsIdentifier(name) || name == "_" {
		return fmt.Errorf("--package: %q is not a name for a Go package", name)
	}
	if err := codegen.CheckSymbols(c.prefix(), ""); err != nil {
		return fmt.Errorf("--prefix: %w", err)
	}
	if err := codegen.CheckSymbols(c.prefix(), c.Entry); err != nil {
		return fmt.Errorf("--entry: %w", err)
	}
	if err := c.sizeFlags.validate(); err != nil {
		return err
	}
	if c.Depend != "" && c.Depend != "D" {
		return fmt.Errorf("-M%s: want -MD", c.Depend)
	}
	stdout := c.Output == "" || c.Output == "-"
	for _, o := range []struct {
		flag string
		used bool
		lang string // the only language that supports it, or ""
		out  bool   // it requires --output
	}{
		{"--package", c.Package != nil, "go", false},
		{"--proxied", c.Proxied, "go", false},
		{"--lws", c.LWS != nil, "c", false},
		{"--entry", c.Entry != "", "c", false},
		{"--prefix", c.Prefix != nil, "c", false},
		{"--header", c.Header != "", "c", true},
		{"--size", c.Size, "c", false},
		{"--format", c.Format != "", "c", false},
		{"--abi", len(c.ABI) > 0, "c", false},
		{"--max-size", c.MaxSize != 0, "c", false},
		{"--lws-option", len(c.LWSOption) > 0, "c", false},
		{"--depfile", c.Depfile != "", "", true},
		{"-MD", c.Depend != "", "", true},
		{"--check", c.Check, "", true},
		{"--variants", len(c.Variants) > 0, "", true},
	} {
		switch {
		case o.used && o.lang != "" && o.lang != c.Lang:
			return fmt.Errorf("%s is for --lang %s", o.flag, o.lang)
		case o.used && o.out && stdout:
			return fmt.Errorf("%s needs --output with a file", o.flag)
		}
	}
	if c.Proxied && len(c.Variants) > 0 {
		return errors.New("--variants needs tables, which --proxied does not write")
	}
	if err := c.validatePool(); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, f := range c.Variants {
		name := variantName(f)
		switch {
		case f == "-":
			return errors.New("--variants: standard input has no name for the variant")
		case names[name]:
			return fmt.Errorf("--variants: two fragments have the name %s", name)
		}
		names[name] = true
	}
	uses := map[string]string{}
	for _, f := range c.inputs() {
		uses[identity(f)] = "an input"
	}
	uses["-"] = ""
	written := []struct{ flag, file string }{{"--output", c.Output}, {"--header", c.Header}, {"--depfile", c.depfileName()}}
	for _, f := range c.variantFiles() {
		written = append(written, struct{ flag, file string }{"--variants", f})
	}
	for _, o := range written {
		if what := uses[identity(o.file)]; what != "" {
			return fmt.Errorf("%s: %s is %s", o.flag, o.file, what)
		}
		if identity(o.file) != "-" {
			uses[identity(o.file)] = "the output of " + o.flag
		}
	}
	if c.depfileName() != "" {
		for _, f := range append([]string{c.Output, c.Header}, c.inputs()...) {
			if strings.ContainsFunc(f, func(r rune) bool { return r < ' ' || r == 0x7f || r == ';' || r == '=' }) {
				return fmt.Errorf("--depfile: the name %q cannot be written in a makefile", f)
			}
		}
	}
	return nil
}

// inputs returns the files that are read.
func (c *compileCmd) inputs() []string { return slices.Concat(c.files(), c.Overlay, c.Variants) }

// files returns the policies.
func (c *compileCmd) files() []string { return append([]string{c.File}, c.More...) }

// variantName returns the name of the variant with a fragment.
func variantName(fragment string) string {
	base := filepath.Base(displayName(fragment))
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// variantFiles returns the files with variants: for C the list comes first.
func (c *compileCmd) variantFiles() []string {
	if len(c.Variants) == 0 {
		return nil
	}
	stem := strings.TrimSuffix(c.Output, filepath.Ext(c.Output))
	if c.Lang == "go" {
		return []string{stem + "_variants.go"}
	}
	files := []string{stem + "_variants.h"}
	for _, f := range c.Variants {
		files = append(files, stem+"_"+variantName(f)+".c")
	}
	return files
}

// include returns the name by which OUT includes the header, or "" without --header.
func (c *compileCmd) include() string {
	if c.Header == "" {
		return ""
	}
	include, err := filepath.Rel(filepath.Dir(c.Output), c.Header)
	if err != nil {
		include = c.Header
	}
	return filepath.ToSlash(include)
}

// valueOr returns the value of a flag, or a default if the flag is not set.
func valueOr[T any](flag *T, value T) T {
	if flag == nil {
		return value
	}
	return *flag
}

// depfileName returns the name of the file for make, or "" for none.
func (c *compileCmd) depfileName() string {
	if c.Depfile == "" && c.Depend != "" {
		return strings.TrimSuffix(c.Output, filepath.Ext(c.Output)) + ".d"
	}
	return c.Depfile
}

// Run executes the command.
func (c *compileCmd) Run(p *program) error {
	collectLate(memoryToCompile, append(slices.Clone(c.Overlay), c.files()...)...)
	outputs, err := c.generate(p, schema.Warning)
	if err != nil {
		return err
	}
	return c.put(p, outputs)
}

// generate returns the files to write, OUT first, and prints the size if requested.
// It reports findings of the severity show and above on standard error.
func (c *compileCmd) generate(p *program, show schema.Severity) ([]generatedFile, error) {
	if len(c.More) > 0 {
		return c.pool(p, show)
	}
	doc, compiled, err := c.compile(p, c.File, c.Overlay, show)
	if err != nil {
		return nil, err
	}
	outputs, err := c.outputs(doc, compiled)
	if err != nil {
		return nil, err
	}
	variants, err := c.variants(p, compiled)
	if err != nil {
		return nil, err
	}
	if c.enabled() {
		size, err := codegen.CFootprint(compiled, c.cOptions())
		if err != nil {
			return nil, c.cError(err)
		}
		if err := c.sizes(p.stdout, size, len(doc.String())); err != nil || c.Size && c.Output == "" {
			return nil, err
		}
	}
	return append(outputs, variants...), nil
}

// put writes or checks files, OUT first.
func (c *compileCmd) put(p *program, outputs []generatedFile) error {
	if len(outputs) == 0 {
		return nil
	}
	if c.Check {
		return check(outputs)
	}
	// Write the output last: when it exists, the other files do.
	for _, o := range slices.Concat(outputs[1:], c.depfile(outputs), outputs[:1]) {
		if err := p.put(o.file, o.text); err != nil {
			return err
		}
	}
	return nil
}

// compile compiles the policy, or a part of it, with fragments.
func (c *compileCmd) compile(p *program, file string, fragments []string, show schema.Severity) (*schema.Document, *policy.Policy, error) {
	o := lint.Options{LWS: []schema.Version{c.lws()}}
	if len(c.Only) > 0 {
		return p.compileOnly(file, fragments, c.Only, o, show)
	}
	return p.compile(file, fragments, "", o, show)
}

// A generatedFile is a file to write.
type generatedFile struct {
	file string
	text []byte
}

// outputs returns the files to write, OUT first.
func (c *compileCmd) outputs(doc *schema.Document, compiled *policy.Policy) ([]generatedFile, error) {
	source := sourceNames(c.File, c.Overlay)
	hash, err := packedHash(doc)
	if err != nil {
		return nil, err
	}
	var out, header bytes.Buffer
	if c.Lang == "go" {
		err := codegen.Go(&out, compiled, c.goOptions(source, hash))
		return []generatedFile{{c.Output, out.Bytes()}}, err
	}
	o := c.cOptions()
	o.Source, o.SHA256 = source, hash
	if c.Header == "" {
		err := codegen.C(&out, compiled, o)
		return []generatedFile{{c.Output, out.Bytes()}}, c.cError(err)
	}
	err = codegen.CWithHeader(&header, &out, c.include(), compiled, o)
	return []generatedFile{{c.Output, out.Bytes()}, {c.Header, header.Bytes()}}, c.cError(err)
}

// sourceNames returns the names of a policy and its fragments, without folders, so
// that a build elsewhere gives the same file.
func sourceNames(file string, fragments []string) string {
	names := filepath.Base(displayName(file))
	for _, f := range fragments {
		names += ", with " + filepath.Base(displayName(f))
	}
	return names
}

// packedHash returns the SHA-256 of policies as sspolicy pack writes them. Comments and
// layout do not change it.
func packedHash(docs ...*schema.Document) (string, error) {
	sum := sha256.New()
	for _, d := range docs {
		text, err := schema.Pack(d)
		if err != nil {
			return "", err
		}
		_, _ = io.WriteString(sum, text) // writing to a hash never fails
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// variants returns the files with the variants.
func (c *compileCmd) variants(p *program, compiled *policy.Policy) ([]generatedFile, error) {
	if len(c.Variants) == 0 {
		return nil, nil
	}
	var list []codegen.Variant
	var docs []*schema.Document
	source := filepath.Base(displayName(c.File))
	for i, f := range c.Variants {
		doc, variant, err := c.compile(p, c.File, append(slices.Clone(c.Overlay), f), schema.Error)
		if err != nil {
			return nil, err
		}
		hash, err := packedHash(doc)
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
		source += map[bool]string{true: ", with ", false: " or "}[i == 0] + filepath.Base(displayName(f))
		list = append(list, codegen.Variant{Name: variantName(f), Policy: variant, SHA256: hash})
	}
	hash, err := packedHash(docs...)
	if err != nil {
		return nil, err
	}
	files := c.variantFiles()
	out := make([]bytes.Buffer, len(files))
	if c.Lang == "go" {
		err = codegen.GoVariants(&out[0], compiled, list, c.goOptions(source, hash))
	} else {
		o := c.cOptions()
		o.Source, o.SHA256 = source, hash
		var sources []io.Writer
		for i := range out[1:] {
			sources = append(sources, &out[i+1])
		}
		err = codegen.CVariants(&out[0], sources, filepath.Base(files[0]), list, o)
	}
	var generated []generatedFile
	for i, f := range files {
		generated = append(generated, generatedFile{f, out[i].Bytes()})
	}
	return generated, c.cError(err)
}

func (c *compileCmd) goOptions(source, hash string) codegen.GoOptions {
	return codegen.GoOptions{Source: source, Options: c.record(c.include()), SHA256: hash, Version: version(), Package: c.goPackage(), Proxied: c.Proxied}
}

func (c *compileCmd) cOptions() codegen.COptions {
	return codegen.COptions{Version: version(), Options: c.record(c.include()), Target: codegen.Target(c.lws().Line()), Prefix: c.prefix(), Entry: c.Entry, Build: c.build}
}

// cError turns an error of the C writer into a finding: the policy contains
// something that the tables cannot hold.
func (c *compileCmd) cError(err error) error {
	if err != nil && len(c.More) > 0 { // err names the policy
		err = &exitError{exitFindings, err}
	} else if err != nil {
		err = &exitError{exitFindings, fmt.Errorf("%s: %w", displayName(c.File), err)}
	}
	return err
}

// check returns an error if a file differs from its expected content.
func check(outputs []generatedFile) error {
	var stale []error
	for _, o := range outputs {
		switch have, err := readfile.Any(o.file, maxLarge); {
		case errors.Is(err, os.ErrNotExist):
			stale = append(stale, fmt.Errorf("%s: does not exist", o.file))
		case err != nil:
			return fileError(o.file, err)
		case !codegen.Equal(have, o.text):
			stale = append(stale, fmt.Errorf("%s: out of date: generate it again", o.file))
		}
	}
	if stale == nil {
		return nil
	}
	return &exitError{exitFindings, errors.Join(stale...)}
}

// depfile returns the file for make, if one is requested.
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
	for _, f := range c.inputs() {
		if f != "-" && !slices.Contains(sources, makeName(f)) {
			sources = append(sources, makeName(f))
			b.WriteString(" " + makeName(f))
		}
	}
	b.WriteByte('\n')
	for _, s := range sources { // so that make continues if one is removed
		b.WriteString("\n" + s + ":\n")
	}
	return []generatedFile{{file, []byte(b.String())}}
}

// makeName quotes the name of a file for a makefile.
func makeName(file string) string {
	var b strings.Builder
	for i := range len(file) {
		switch ch := file[i]; ch {
		case '$':
			b.WriteString("$$")
		case ' ', '\t', '#', ':':
			// Backslashes before it would quote the added one.
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

// compile compiles a policy with fragments, unless it has errors. It reports
// findings of the severity show and above on standard error. If a streamtype is
// named, errors of streamtypes that it does not need are warnings.
func (p *program) compile(file string, fragments []string, streamtype string, o lint.Options, show schema.Severity) (*schema.Document, *policy.Policy, error) {
	base, above, err := p.layers(file, fragments)
	if err != nil {
		return nil, nil, err
	}
	return p.compileDocuments(base, above, streamtype, o, show)
}

// compileOnly is like compile, for the part of a policy that the streamtypes need.
func (p *program) compileOnly(file string, fragments, streamtypes []string, o lint.Options, show schema.Severity) (*schema.Document, *policy.Policy, error) {
	base, above, err := p.layers(file, fragments)
	if err != nil {
		return nil, nil, err
	}
	switch part, all, missing := only(base, above, streamtypes...); {
	case missing != "":
		return nil, nil, unknown("--only: the policy has no streamtype", missing, all)
	case part != nil:
		base, above = part, nil
	}
	return p.compileDocuments(base, above, "", o, show)
}

// compileAssembled is like compile, but also accepts a fragment whose base is known. It
// is for commands that execute the policy.
func (p *program) compileAssembled(file string, fragments []string, streamtype string, o lint.Options, show schema.Severity) (*schema.Document, *policy.Policy, error) {
	base, above, err := p.assemble(file, fragments)
	if err != nil {
		return nil, nil, err
	}
	return p.compileDocuments(base, above, streamtype, o, show)
}

func (p *program) compileDocuments(base *schema.Document, above []*schema.Document, streamtype string, o lint.Options, show schema.Severity) (*schema.Document, *policy.Policy, error) {
	compiled, err := sspolicy.Compile(base, o, above...)
	var found []schema.Diagnostic
	if refused, ok := errors.AsType[*sspolicy.Error](err); ok {
		found = refused.Diagnostics
		if part, _, _ := only(base, above, streamtype); part != nil {
			compiled, _ = sspolicy.Compile(part, o) // nil if it has errors too
		}
	} else if err != nil {
		return nil, nil, err
	} else {
		found = compiled.Diagnostics
	}
	found = slices.DeleteFunc(found, func(d schema.Diagnostic) bool {
		// A suppression may be for another version of lws than the one compiled for.
		return d.Severity < show || d.Rule == lint.RuleUnusedSuppression
	})
	if compiled != nil {
		for i := range found {
			found[i].Severity = min(found[i].Severity, schema.Warning)
		}
	}
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return nil, nil, err
	}
	if compiled == nil {
		return nil, nil, errFindings
	}
	return compiled.Document, compiled.Policy, nil
}
