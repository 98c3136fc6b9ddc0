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
	signatureFlags
	ELF      string `name:"elf" xor:"what" placeholder:"FILE" help:"Check that this program, library or object file holds the policy."`
	Compiled string `xor:"what" placeholder:"FILE" help:"Check that this file holds the policy: Go that compile wrote, or C that compile or policy2c of lws wrote, which needs a C compiler."`
	tableFlags
	Overlay []string `sep:"none" placeholder:"FRAGMENT" help:"Lay this fragment over the policy first. May be repeated."`
	colorFlag
	File string `arg:"" help:"The policy."`
	Sig  string `arg:"" optional:"" help:"With --key: the signature that sign wrote, after the rotations if there are any."`
}

// Help is what "sspolicy verify --help" adds.
func (verifyCmd) Help() string {
	return "With --key, checks the signature of a policy as devices do. --elf and --compiled compare meanings: names of backoff schemes, unused definitions, comments and layout do not count. If they differ, prints what the file holds as a diff to the policy."
}

// Validate checks the command line.
func (c *verifyCmd) Validate() error {
	switch {
	case len(c.Key) > 0 && (c.Symbol != "" || c.LWS != nil || len(c.Overlay) > 0):
		return errors.New("--key: --symbol, --lws and --overlay are for --elf and --compiled")
	case len(c.Key) > 0 && c.Sig == "":
		return errors.New("--key: want the policy and its signature")
	case len(c.Key) == 0 && c.signatureFlags.used():
		return errors.New("--minimum-version, --at, --product and --threshold need --key")
	case len(c.Key) == 0 && c.ELF == "" && c.Compiled == "":
		return errors.New("want --key with a public key, or --elf or --compiled with a file")
	case len(c.Key) == 0 && c.Sig != "":
		return fmt.Errorf("unexpected argument %s", c.Sig)
	}
	return nil
}

// Run executes the command.
func (c *verifyCmd) Run(p *program) error {
	if len(c.Key) > 0 {
		return c.verifySignature(p, c.File, c.Sig)
	}
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
