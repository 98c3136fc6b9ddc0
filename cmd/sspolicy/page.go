package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/secure-streams/sspolicy/internal/breaking"
	"github.com/secure-streams/sspolicy/internal/overview"
	"github.com/secure-streams/sspolicy/internal/project"
)

type reportCmd struct {
	Output string    `short:"o" placeholder:"OUT.html" help:"Write to this file instead of standard output."`
	Base   string    `placeholder:"OLD" help:"Show the changes from this policy, or git:REV:PATH."`
	At     time.Time `format:"2006-01-02" placeholder:"DATE" help:"The day for which certificates are shown, as 2006-01-02 (today)."`
	fileFlags
}

// Help returns the description for "sspolicy report --help".
func (reportCmd) Help() string {
	return "Writes an HTML page that needs no other files: streamtypes, a graph, certificates over time, retries, the size of C tables for each lws version, the findings of lint, and the changes from a base. A policy with errors has a report too."
}

// Validate checks the command line.
func (c *reportCmd) Validate() error {
	for _, f := range append([]string{c.Base}, c.Files...) {
		if c.Output != "" && c.Output != "-" && f != "" && identity(c.Output) == identity(f) {
			return fmt.Errorf("--output: %s is an input", c.Output)
		}
	}
	return nil
}

// Run executes the command.
func (c *reportCmd) Run(p *program) error {
	targets, err := c.targets(p)
	if err != nil {
		return err
	}
	if c.Base != "" && len(targets) != 1 {
		return &exitError{exitUsage, errors.New("--base is for one policy")}
	}
	if c.At.IsZero() {
		c.At = time.Now()
	}
	var subjects []overview.Subject
	for _, t := range targets {
		s, err := c.subject(p, t)
		if err != nil {
			return err
		}
		subjects = append(subjects, s)
	}
	return p.output(c.Output, func(w io.Writer) error {
		return overview.Write(w, subjects, overview.Options{Version: version(), At: c.At})
	})
}

// subject reads a policy and the data for its part of the page.
func (c *reportCmd) subject(p *program, t target) (s overview.Subject, err error) {
	if s.Document, err = p.readable(t.file); err != nil {
		return s, err
	}
	o := project.Options(t.config)
	o.At, o.Filter = c.At, t.config.Apply
	if s.Diagnostics, err = project.Lint(s.Document, t.config, readBase, o); err != nil {
		return s, err
	}
	if s.Document, err = p.comparable(s.Document, t.config, c.Base); err != nil || c.Base == "" {
		return s, err
	}
	base, err := p.revision(c.Base)
	if err != nil {
		return s, err
	}
	if base, err = p.readableText(base); err != nil {
		return s, err
	}
	if base, err = p.comparable(base, t.config, c.Base); err != nil {
		return s, err
	}
	s.Base = base.Source.Name
	s.Changes = breaking.Compare(base, s.Document, breaking.Options{})
	return s, nil
}
