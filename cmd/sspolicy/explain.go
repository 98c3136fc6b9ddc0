package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

type explainCmd struct {
	Name string `arg:"" complete:"names" help:"A rule, such as forward-reference; a key, such as port or retry.conceal; or a state, such as CONNECTED."`
}

// Run executes the command.
func (c *explainCmd) Run(p *program) error {
	text := explain.Explain(c.Name)
	if text == "" {
		err := fmt.Errorf("no rule, key or state is called %q", c.Name)
		if better := schema.Nearest(c.Name, explain.Names()); better != "" {
			err = fmt.Errorf("%w: did you mean %q?", err, better)
		}
		return &exitError{exitUsage, err}
	}
	_, err := io.WriteString(p.stdout, text)
	return err
}

type rulesCmd struct{}

// Run executes the command.
func (rulesCmd) Run(p *program) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, r := range rules.All() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Severity, r.Summary)
	}
	return w.Flush()
}

type schemaCmd struct{}

// Help is what "sspolicy schema --help" adds.
func (schemaCmd) Help() string {
	return "It is draft 2020-12, and what sspolicy itself checks policies with. Editors complete and explain keys by it."
}

// Run executes the command.
func (schemaCmd) Run(p *program) error {
	_, err := io.WriteString(p.stdout, schema.JSONSchema)
	return err
}
