package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// checkFlags are the flags of the commands that report on policies.
type checkFlags struct {
	LWS []schema.Version `name:"lws" complete:"versions" placeholder:"VERSION" help:"The lws versions that the policy is for, 4.1 to 5.0 (${lws})."`
	reportFlags
	Config string   `placeholder:"FILE" help:"The configuration, instead of the nearest .sspolicy.json in or above the working directory; none for none."`
	Files  []string `arg:"" name:"file" help:"The policies."`
}

// check reports what find finds in each file, all at once. A file that can't be
// read does not keep it from the others. It fails at the level if neither a
// flag nor the configuration says at which.
func (c *checkFlags) check(p *program, cfg *config.Config, level report.Level, find func(*schema.Document) []schema.Diagnostic) error {
	if c.LWS != nil && len(c.LWS) == 0 {
		return &exitError{exitUsage, errors.New("--lws: no version")}
	}
	c.FailLevel = cmp.Or(c.FailLevel, report.Level(cfg.FailLevel), level)
	outs, err := c.outputs(p, c.Files)
	if err != nil {
		return err
	}
	var names []string
	var all []schema.Diagnostic
	var failed error
	for _, file := range c.Files {
		if d, err := p.document(file); err != nil {
			failed = errors.Join(failed, err)
		} else {
			names = append(names, d.Source.Name)
			all = append(all, find(d)...)
		}
	}
	if err := c.write(p, outs, names, all); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	return c.failure(all)
}

// config returns the configuration that is in force, an empty one if there is
// none.
func (c *checkFlags) config(p *program) (*config.Config, error) {
	file := c.Config
	if file == "" {
		dir, err := os.Getwd()
		if err == nil {
			file, err = config.Find(dir)
		}
		if err != nil {
			return nil, err
		}
		if rel, err := filepath.Rel(dir, file); err == nil {
			file = rel
		}
	}
	text := []byte("{}")
	if file != "" && file != "none" {
		var err error
		if text, err = p.read(file); err != nil {
			return nil, fileError(file, err)
		}
	}
	cfg, found := config.Parse(file, text)
	if len(found) > 0 {
		if err := report.Write(p.stderr, report.FormatText, found); err != nil {
			return nil, err
		}
		return nil, &exitError{code: exitUsage}
	}
	if c.LWS == nil {
		c.LWS = cfg.LWS
	}
	return cfg, nil
}

type validateCmd struct {
	checkFlags `embed:"" set:"fail_level=error"`
}

// Help is what "sspolicy validate --help" adds.
func (validateCmd) Help() string {
	return "Checks the syntax, and by the JSON Schema the keys, types and ranges. Fails on errors; warnings are shown."
}

// Run executes the command.
func (c *validateCmd) Run(p *program) error {
	cfg, err := c.config(p)
	if err != nil {
		return err
	}
	return c.check(p, cfg, "error", func(d *schema.Document) []schema.Diagnostic {
		return lint.Run(d, rules.All(), lint.Options{LWS: c.LWS, Shape: true, Filter: cfg.Apply})
	})
}

type lintCmd struct {
	checkFlags `embed:"" set:"fail_level=warning"`
	CertWarn   *int      `placeholder:"DAYS" help:"Report certificates that end in less than so many days (30)."`
	At         time.Time `format:"2006-01-02" placeholder:"DATE" help:"The day that certificates must be valid on, as 2006-01-02, for the same result at any time (today)."`
	Fix        bool      `help:"Mend in the files what can be mended without a doubt, and report what is left."`
	Diff       bool      `help:"With --fix: print what it would change, as a unified diff, and change nothing."`
}

// Help is what "sspolicy lint --help" adds.
func (lintCmd) Help() string {
	return "Checks all that validate does, and what the policy means: order, references and more. Fails on warnings and errors. A finding is suppressed by a comment on its line or the line above: # sspolicy:ignore RULE -- REASON."
}

// Validate says what is wrong with the flags.
func (c *lintCmd) Validate() error {
	switch {
	case c.Diff && !c.Fix:
		return errors.New("--diff goes with --fix")
	case c.CertWarn != nil && (*c.CertWarn < 0 || *c.CertWarn > 36500):
		return fmt.Errorf("--cert-warn is a number of days, 0 to 36500, not %d", *c.CertWarn)
	}
	return nil
}

const day = 24 * time.Hour

// Run executes the command.
func (c *lintCmd) Run(p *program) error {
	cfg, err := c.config(p)
	if err != nil {
		return err
	}
	o := lint.Options{LWS: c.LWS, At: c.At, CertWarn: 30 * day, Filter: cfg.Apply}
	switch {
	case c.CertWarn != nil:
		o.CertWarn = time.Duration(*c.CertWarn) * day
	case cfg.CertWarn >= 0:
		o.CertWarn = cfg.CertWarn
	}
	if c.Fix {
		if err := c.fix(p, o); err != nil || c.Diff {
			return err
		}
	}
	return c.check(p, cfg, "warning", func(d *schema.Document) []schema.Diagnostic { return lint.Run(d, rules.All(), o) })
}

// fix mends the files, or prints what that would change. Files that can't be
// read are passed over here if they are reported afterwards.
func (c *lintCmd) fix(p *program, o lint.Options) error {
	var failed error
	for _, file := range c.Files {
		if file == "-" && !c.Diff {
			return usage("--fix: standard input can't be changed: with --diff it shows what it would change")
		}
		d, err := p.document(file)
		if err != nil {
			if c.Diff {
				failed = errors.Join(failed, err)
			}
			continue
		}
		fixed, n := lint.Fix(d, rules.All(), o)
		switch {
		case n == 0:
		case c.Diff:
			if _, err := p.stdout.Write(diff.Diff(harmless(d.Source.Name), []byte(d.Source.Text), "fixed", []byte(fixed.Source.Text))); err != nil {
				return err
			}
		default:
			if err := p.output(file, write(fixed.Source.Text)); err != nil {
				return err
			}
		}
	}
	return failed
}
