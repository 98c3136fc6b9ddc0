package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

type verifyCmd struct {
	signatureFlags
	ELF      string `name:"elf" xor:"what" placeholder:"FILE" help:"Check that this program, library or object file holds the policy."`
	Compiled string `xor:"what" placeholder:"FILE" help:"Check that this file holds the policy: Go or C that compile wrote, or C that policy2c of lws wrote, which needs a C compiler."`
	tableFlags
	Overlay  []string `sep:"none" placeholder:"FRAGMENT" help:"Apply this fragment to the policy first. May be repeated."`
	Variants []string `placeholder:"FRAGMENT" help:"The --variants of compile, if FILE is one of the files with variants."`
	colorFlag
	File string   `arg:"" help:"The policy."`
	More []string `arg:"" optional:"" help:"With --key: the signature that sign wrote, after the rotations if there are any. With --compiled: the other policies, if compile was given several."`
}

// Help returns the description for "sspolicy verify --help".
func (verifyCmd) Help() string {
	return "With --key, checks the signature of a policy as devices do. With --compiled, a file that compile wrote records its options: verify compiles the policy again with these and compares the bytes, except for the version of sspolicy, the names of the policies and line ends. Programs and other files are compared by meaning: names of backoff schemes, unused definitions, comments and layout do not count. If the policies differ, verify prints a diff."
}

// Validate checks the command line.
func (c *verifyCmd) Validate() error {
	switch {
	case len(c.Key) > 0 && (c.Symbol != "" || c.LWS != nil || len(c.Overlay) > 0 || len(c.Variants) > 0):
		return errors.New("--key: --symbol, --lws, --overlay and --variants are for --elf and --compiled")
	case len(c.Key) > 0 && len(c.More) != 1:
		return errors.New("--key: want the policy and its signature")
	case len(c.Key) == 0 && c.signatureFlags.used():
		return errors.New("--minimum-version, --at, --product and --threshold need --key")
	case len(c.Key) == 0 && c.ELF == "" && c.Compiled == "":
		return errors.New("want --key with a public key, or --elf or --compiled with a file")
	case c.ELF != "" && (len(c.More) > 0 || len(c.Variants) > 0):
		return errors.New("several policies and --variants are for --compiled")
	}
	return nil
}

// Run executes the command.
func (c *verifyCmd) Run(p *program) error {
	if len(c.Key) > 0 {
		return c.verifySignature(p, c.File, c.More[0])
	}
	if c.Compiled != "" && c.Symbol == "" {
		have, err := readfile.Any(c.Compiled, maxLarge)
		if err != nil {
			return fileError(c.Compiled, err)
		}
		if origin, ok := codegen.ReadProvenance(have); ok && origin.Options != "" {
			return c.rewrite(p, have, origin)
		}
	}
	if filepath.Ext(c.Compiled) == ".go" {
		return &exitError{exitFindings, fmt.Errorf("%s is not a file that compile --lang go wrote", c.Compiled)}
	}
	if len(c.More) > 0 || len(c.Variants) > 0 {
		return &exitError{exitFindings, fmt.Errorf("%s is not a file that compile wrote: it can be compared with one policy alone", c.Compiled)}
	}
	return c.compareTables(p)
}

// rewrite compares a file that compile wrote with what it writes now.
func (c *verifyCmd) rewrite(p *program, have []byte, origin codegen.Provenance) error {
	options, err := recordedOptions(origin.Options)
	if err != nil {
		return &exitError{exitFindings, fmt.Errorf("%s: the line Options does not hold flags of compile: %w", c.Compiled, err)}
	}
	again := compileCmd{tableOptions: options, Overlay: c.Overlay, Variants: c.Variants, Output: c.output(), File: c.File, More: c.More}
	if options.Header != "" { // its name is relative to OUT
		again.Output = "tables.c"
	}
	outputs, err := again.generate(p, schema.Error)
	if misuse, ok := errors.AsType[*exitError](err); ok && misuse.code == exitUsage { // a streamtype of --only
		return c.mismatch(err.Error())
	} else if err != nil {
		return err
	}
	for _, o := range outputs {
		if codegen.EqualPolicy(have, o.text) {
			_, err := fmt.Fprintf(p.stdout, "%s is what compile writes for %s\n", c.Compiled, c.policies())
			return err
		}
	}
	like := -1 // the most similar output, by hash and name
	for i, o := range outputs {
		now, _ := codegen.ReadProvenance(o.text)
		if now.SHA256 == origin.SHA256 && (like < 0 || filepath.Ext(o.file) == filepath.Ext(c.Compiled)) {
			like = i
		}
	}
	if like < 0 {
		if options.Lang == "c" && len(outputs) == 1 {
			c.LWS = options.LWS
			_ = c.compareTables(p) // shows the differences, if the tables can be read
		}
		now, _ := codegen.ReadProvenance(outputs[0].text)
		return c.mismatch(fmt.Sprintf("it was made of %s with the SHA-256 %s, not %s", origin.Source, origin.SHA256, now.SHA256))
	}
	if err := c.diff(p, "", c.policies()+", compiled", string(outputs[like].text), c.Compiled, string(have)); err != nil {
		return err
	}
	reason := "it was changed"
	if origin.Version != version() {
		reason += fmt.Sprintf(", or sspolicy %s, which wrote it, writes other text than this one, %s", origin.Version, version())
	}
	return c.mismatch(reason)
}

// mismatch returns the finding that a file differs from what compile writes.
func (c *verifyCmd) mismatch(reason string) error {
	return &exitError{exitFindings, fmt.Errorf("%s is not what compile writes for %s: %s", c.Compiled, c.policies(), reason)}
}

// output returns the name of OUT. The names of files with variants, and their
// texts, are derived from it.
func (c *verifyCmd) output() string {
	ext := filepath.Ext(c.Compiled)
	stem := strings.TrimSuffix(c.Compiled, ext)
	for _, f := range c.Variants {
		stem = strings.TrimSuffix(stem, "_"+variantName(f))
	}
	return strings.TrimSuffix(stem, "_variants") + ext
}

// policies names the policies for a message.
func (c *verifyCmd) policies() string {
	var names []string
	for _, f := range append([]string{c.File}, c.More...) {
		names = append(names, displayName(f))
	}
	return strings.Join(names, ", ")
}

// compareTables compares the tables of a program, or in C source, with the policy.
func (c *verifyCmd) compareTables(p *program) error {
	var o lint.Options
	if c.LWS != nil {
		o.LWS = []schema.Version{*c.LWS}
	}
	doc, compiled, err := p.compile(c.File, c.Overlay, "", o, schema.Error)
	if err != nil {
		return err
	}
	hash, err := packedHash(doc)
	if err != nil {
		return err
	}
	read, file := c.readC, c.Compiled
	if c.ELF != "" {
		read, file = c.readELF, c.ELF
	}
	readings, err := read(file)
	if err != nil {
		return err
	}
	want := codegen.JSON(codegen.TablesOnly(compiled))
	for _, r := range readings {
		if codegen.JSON(codegen.TablesOnly(r.Policy)) != want {
			continue
		}
		note := ""
		if r.Identity != nil && r.Identity.SHA256 != hash {
			note = "; its identity has the SHA-256 of another text of the policy"
		}
		_, err := fmt.Fprintf(p.stdout, "%s holds %s%s\n", file, displayName(c.File), note)
		return err
	}
	got := codegen.JSON(codegen.TablesOnly(readings[0].Policy))
	if err := c.diff(p, "", displayName(c.File), want, file, got); err != nil {
		return err
	}
	return &exitError{exitFindings, fmt.Errorf("%s does not hold %s", file, displayName(c.File))}
}
