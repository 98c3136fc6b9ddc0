package main

import (
	"fmt"
	"io"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/schema"
)

type fmtCmd struct {
	Check bool `xor:"how" help:"Write nothing. Name the files whose layout differs, and fail if there are any."`
	Write bool `short:"w" xor:"how" help:"Write the result to the file instead of standard output."`
	Diff  bool `xor:"how" help:"Print the changes as a unified diff instead of writing them."`
	colorFlag
	fileFlags
}

// Help returns the description for "sspolicy fmt --help".
func (fmtCmd) Help() string {
	return "Keeps comments and the order of everything. Refuses a policy with syntax errors."
}

// Run executes the command.
func (c *fmtCmd) Run(p *program) error {
	targets, err := c.targets(p)
	if err != nil {
		return err
	}
	changed := false
	for _, t := range targets {
		d, err := p.document(t.file)
		if err != nil {
			return err
		}
		text, err := schema.Format(d)
		if schema.HasErrors(d.Syntax) {
			if err := report.Write(p.stderr, report.FormatText, d.Syntax); err != nil {
				return err
			}
			return errFindings
		}
		if err != nil {
			return fileError(t.file, err)
		}
		same := text == d.Source.Text
		changed = changed || !same
		switch {
		case c.Check && !same:
			fmt.Fprintln(p.stdout, harmless(d.Source.Name))
		case c.Diff:
			err = c.diff(p, "", d.Source.Name, d.Source.Text, "formatted", text)
		case c.Write && !same:
			err = p.output(t.file, write(text))
		case !c.Check && !c.Write:
			err = p.output("", write(text))
		}
		if err != nil {
			return err
		}
	}
	if changed && c.Check {
		return errFindings
	}
	return nil
}

// write returns a function that writes a text.
func write(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}
