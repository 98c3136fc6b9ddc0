package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/graph"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

type graphCmd struct {
	Format string `enum:"svg,dot,mermaid" default:"svg" help:"svg is a picture (the default), dot the language of Graphviz, mermaid a flowchart for Markdown."`
	Output string `short:"o" placeholder:"OUT" help:"Write to this file instead of standard output."`
	File   string `arg:"" help:"The policy."`
}

// Help returns the description for "sspolicy graph --help".
func (graphCmd) Help() string {
	return "Shows the streamtypes by endpoint, and the backoff schemes, trust stores, certificates and auth schemes that they refer to. A policy with broken references is drawn too: they are red."
}

// Validate checks the command line.
func (c *graphCmd) Validate() error {
	if c.Output != "" && c.Output != "-" && identity(c.Output) == identity(c.File) {
		return fmt.Errorf("--output: %s is the policy", c.Output)
	}
	switch ext := strings.ToLower(filepath.Ext(c.Output)); ext {
	case ".png", ".pdf", ".jpg":
		return fmt.Errorf("--output: graph does not write %s: write DOT, and convert it with Graphviz", ext)
	}
	return checkExtension(c.Output, c.Format, map[string]string{".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid"})
}

// Run executes the command.
func (c *graphCmd) Run(p *program) error {
	d, err := p.readable(c.File)
	if err != nil {
		return err
	}
	settings, err := p.nearest(d)
	if err != nil {
		return err
	}
	if d, err = p.applied(d, settings); err != nil {
		return err
	}
	g := graph.New(schema.NewPolicy(d))
	text := g.SVG
	switch c.Format {
	case "dot":
		text = g.DOT
	case "mermaid":
		text = g.Mermaid
	}
	return p.put(c.Output, []byte(text()))
}

// readable reads a policy for a command that shows it, valid or not. Syntax errors
// that can be corrected with certainty are reported and corrected; others are
// findings.
func (p *program) readable(file string) (*schema.Document, error) {
	d, err := p.document(file)
	if err != nil {
		return nil, err
	}
	return p.readableText(d)
}

// readableText is like readable, for a text that has been read.
func (p *program) readableText(d *schema.Document) (*schema.Document, error) {
	found := d.Syntax
	other := d.NotPolicy()
	if other != nil {
		found = append(found, *other)
	}
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return nil, err
	}
	if d.Damaged() || other != nil {
		return nil, errFindings
	}
	return d.Corrected(), nil
}

// applied returns a policy unchanged, and for a fragment its base with the fragment
// applied.
func (p *program) applied(d *schema.Document, c *config.Config) (*schema.Document, error) {
	base, err := project.FragmentOf(d, c).Read(c, readBase)
	if err != nil || base == nil {
		return d, err
	}
	if base, err = p.readableText(base); err != nil {
		return nil, err
	}
	r := overlay.Apply(base, []*schema.Document{d}, overlay.Options{})
	found := slices.DeleteFunc(r.Diagnostics, func(g schema.Diagnostic) bool { return g.Severity < schema.Error })
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return nil, err
	}
	if r.Document == nil {
		return nil, errFindings
	}
	return r.Document, nil
}
