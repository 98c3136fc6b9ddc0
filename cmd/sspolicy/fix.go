package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
)

// fixFlags are the flags of lint that apply fixes.
type fixFlags struct {
	Fix         bool `help:"Apply the safe fixes to the files, list them, and report the rest. Standard input goes to standard output, and the report to standard error."`
	UnsafeFixes bool `help:"Apply the unsafe fixes too, which may change the meaning of a policy or remove settings."`
	Diff        bool `help:"With --fix: print the changes as a unified diff instead of writing them, and fail if there are any."`
}

// Validate checks the flags.
func (f *fixFlags) Validate() error {
	if f.UnsafeFixes {
		f.Fix = true
	}
	if f.Diff && !f.Fix {
		return errors.New("--diff needs --fix")
	}
	return nil
}

// fix fixes the policies, or prints the changes and fails if there are any. It
// skips a file that cannot be read if check reports that later. It returns the
// program for check, whose standard input is the fixed policy.
func (c *lintCmd) fix(p *program, targets []target, options func(*config.Config) lint.Options) (*program, error) {
	var failed error
	changed, after := false, *p
	for _, t := range targets {
		if !c.extractOptions().Plain(t.file) {
			n, err := c.fixExtracted(p, t, options(t.config))
			if err != nil && !c.Diff {
				continue // check reports it
			}
			failed = errors.Join(failed, err)
			changed = changed || n > 0
			continue
		}
		d, err := p.document(t.file)
		if err != nil {
			if c.Diff {
				failed = errors.Join(failed, err)
			}
			continue
		}
		o := options(t.config)
		o.UnsafeFixes, o.Fragment = c.UnsafeFixes, c.Fragment || project.FragmentOf(d, t.config) != nil
		fixed, list := lint.Fix(d, rules.All(), o)
		changed = changed || len(list) > 0
		switch {
		case c.Diff && len(list) > 0:
			name := diffName(d.Source.Name)
			err = c.diff(p, "", "a/"+name, d.Source.Text, "b/"+name, fixed.Source.Text)
		case c.Diff:
		case len(list) > 0 || t.file == "-":
			err = p.output(t.file, write(fixed.Source.Text))
		}
		if err != nil {
			return nil, err
		}
		if t.file == "-" {
			after.stdin, after.stdout = strings.NewReader(fixed.Source.Text), p.stderr
		}
		if c.Diff || c.Quiet {
			continue
		}
		for _, g := range list {
			fmt.Fprintf(p.stderr, "%s: fixed: %s [%s]\n", harmless(g.Span.String()), harmless(g.Fixes[0].Message), g.Rule)
		}
	}
	if failed == nil && changed && c.Diff {
		failed = errFindings
	}
	return &after, failed
}

// diffName returns a file's name in the form that git apply accepts.
func diffName(name string) string {
	if abs, err := filepath.Abs("."); err == nil && filepath.IsAbs(name) {
		if rel, err := filepath.Rel(abs, name); err == nil && filepath.IsLocal(rel) {
			name = rel
		}
	}
	return harmless(strings.TrimPrefix(filepath.ToSlash(filepath.Clean(name)), "/"))
}
