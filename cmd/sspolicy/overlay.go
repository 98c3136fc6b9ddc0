package main

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

type overlayCmd struct {
	Base      string   `arg:"" help:"The policy."`
	Fragments []string `arg:"" name:"fragment" help:"The fragments to apply, in this order."`
	Output    string   `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	Diff      bool     `help:"Print what changes, as a unified diff, instead of the result."`
	AllowNew  bool     `help:"Let fragments add streamtypes."`
	colorFlag
}

// Help is what "sspolicy overlay --help" adds.
func (overlayCmd) Help() string {
	return `A fragment is a policy that holds only what differs: {"s": [{"mintest": {"port": 1}}]}. A setting replaces that of the base or is added; null removes it. Metadata items and statuses of http_resp_map are replaced one by one. A backoff scheme, certificate, trust store, auth scheme or metric policy is added, or replaces the one of its name. Refuses a result with errors.`
}

// Run executes the command.
func (c *overlayCmd) Run(p *program) error {
	base, err := p.document(c.Base)
	if err != nil {
		return err
	}
	fragments, err := p.documents(c.Fragments)
	if err != nil {
		return err
	}
	r := sspolicy.Overlay(base, fragments, overlay.Options{AllowNew: c.AllowNew}, lint.Options{})
	found := slices.DeleteFunc(slices.Clone(r.Diagnostics), func(d schema.Diagnostic) bool {
		switch d.Severity {
		case schema.Error:
			return false
		case schema.Warning: // those of the base are not about the overlay
			return d.Span.Source == base.Source
		}
		return !strings.HasPrefix(d.Rule, "overlay-")
	})
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return err
	}
	if schema.HasErrors(found) {
		return errFindings
	}
	if c.Diff {
		name := diffName(base.Source.Name)
		return c.diff(p, c.Output, "a/"+name, base.Source.Text, "b/"+name, r.Document.String())
	}
	return p.output(c.Output, write(r.Document.String()))
}
