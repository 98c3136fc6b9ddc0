package main

import (
	"errors"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/schema"
)

type overlayCmd struct {
	Base      string   `arg:"" help:"The policy."`
	Fragments []string `arg:"" name:"fragment" help:"The fragments to lay over it, in this order."`
	Output    string   `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Diff      bool     `help:"Print what changes, as a unified diff, instead of the result."`
	colorFlag
}

// Help is what "sspolicy overlay --help" adds.
func (overlayCmd) Help() string {
	return `A fragment is a policy with streamtypes of the base only, each with the settings to change: {"s": [{"mintest": {"port": 1}}]}. A setting replaces that of the base or is added; null removes it. Metadata items are replaced and added one by one.`
}

// Run executes the command.
func (c *overlayCmd) Run(p *program) error {
	base, err := p.document(c.Base)
	if err != nil {
		return err
	}
	if schema.HasErrors(base.Syntax) {
		return errors.Join(report.Write(p.stderr, report.FormatText, base.Syntax), errFindings)
	}
	result, err := p.overlay(p.stderr, base, c.Fragments)
	if err != nil {
		return err
	}
	if c.Diff {
		return c.diff(p, c.Output, base.Source.Name, base.Source.Text, "overlaid", result.String())
	}
	return p.output(c.Output, write(result.String()))
}
