package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

type verifyCmd struct {
	ELF      string `name:"elf" xor:"what" placeholder:"FILE" help:"Check that this program, library or object file holds the policy."`
	Compiled string `xor:"what" placeholder:"FILE" help:"Check that this file holds the policy: Go that compile wrote, or C that compile or policy2c of lws wrote, which needs a C compiler."`
	tableFlags
	Overlay []string `sep:"none" placeholder:"FRAGMENT" help:"Lay this fragment over the policy first. May be repeated."`
	colorFlag
	File string `arg:"" help:"The policy."`
}

// Help is what "sspolicy verify --help" adds.
func (verifyCmd) Help() string {
	return "Compares meanings: names of backoff schemes, unused definitions, comments and layout do not count. If they differ, prints what the file holds as a diff to the policy."
}

// Validate checks the command line.
func (c *verifyCmd) Validate() error {
	if c.ELF == "" && c.Compiled == "" {
		return errors.New("want --elf or --compiled with a file")
	}
	return nil
}

// Run executes the command.
func (c *verifyCmd) Run(p *program) error {
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
	if filepath.Ext(c.Compiled) == ".go" {
		return c.verifyGo(p, compiled, hash)
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
	return c.differs(file)
}

// differs returns the finding that a file does not hold the policy.
func (c *verifyCmd) differs(file string) error {
	return &exitError{exitFindings, fmt.Errorf("%s does not hold %s", file, displayName(c.File))}
}

var (
	goSource  = regexp.MustCompile(`(?m)^// Source: (.*)$`)
	goPackage = regexp.MustCompile(`(?m)^package (\w+)`)
)

// verifyGo checks a Go file by writing it again.
func (c *verifyCmd) verifyGo(p *program, compiled *policy.Policy, hash string) error {
	have, err := os.ReadFile(c.Compiled)
	if err != nil {
		return fileError(c.Compiled, err)
	}
	source, name := goSource.FindSubmatch(have), goPackage.FindSubmatch(have)
	if source == nil || name == nil {
		return &exitError{exitFindings, fmt.Errorf("%s is not a file that compile --lang go wrote", c.Compiled)}
	}
	o := codegen.GoOptions{Source: string(bytes.TrimRight(source[1], "\r")), SHA256: hash, Version: version(), Package: string(name[1])}
	for _, o.Proxied = range []bool{false, true} {
		var want bytes.Buffer
		if err := codegen.Go(&want, compiled, o); err == nil && codegen.Equal(have, want.Bytes()) {
			_, err = fmt.Fprintf(p.stdout, "%s holds %s\n", c.Compiled, displayName(c.File))
			return err
		}
	}
	return c.differs(c.Compiled)
}
