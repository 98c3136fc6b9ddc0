package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	fixFlags
}

// Help is what "sspolicy lint --help" adds.
func (lintCmd) Help() string {
	return "Checks all that validate does, and what the policy means: order, references and more. Fails on warnings and errors. A finding is suppressed by a comment on its line or the line above: # sspolicy:ignore RULE -- REASON."
}

// Validate says what is wrong with the flags.
func (c *lintCmd) Validate() error {
	if c.CertWarn != nil && (*c.CertWarn < 0 || *c.CertWarn > 36500) {
		return fmt.Errorf("--cert-warn must be a number of days from 0 to 36500, not %d", *c.CertWarn)
	}
	return c.fixFlags.Validate()
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
		if p, err = c.fixFiles(p, o); err != nil || c.Diff {
			return err
		}
	}
	return c.check(p, cfg, "warning", func(d *schema.Document) []schema.Diagnostic { return lint.Run(d, rules.All(), o) })
}

// fixFiles fixes the files. It leaves files that cannot be read to the report
// that follows, if there is one. It returns the program for that report.
func (c *lintCmd) fixFiles(p *program, o lint.Options) (*program, error) {
	var failed error
	any := false
	after := *p
	for _, file := range c.Files {
		text, err := p.read(file)
		if err != nil {
			if c.Diff {
				failed = errors.Join(failed, fileError(file, err))
			}
			continue
		}
		fixed, changed, err := c.fix(p, file, schema.Parse(displayName(file), text), o, c.Quiet)
		if err != nil {
			return nil, err
		}
		any = any || changed
		if file == "-" {
			after.stdin, after.stdout = strings.NewReader(fixed.Source.Text), p.stderr
		}
	}
	if failed == nil && any && c.Diff {
		failed = errFindings
	}
	return &after, failed
}
