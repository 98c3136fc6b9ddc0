package main

import (
	"fmt"
	"io"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/schema"
)

type fmtCmd struct {
	Check bool     `xor:"how" help:"Write nothing: name the files whose layout is another, and fail if there are any."`
	Write bool     `short:"w" xor:"how" help:"Write the result to the file instead of standard output."`
	Diff  bool     `xor:"how" help:"Print what would change, as a unified diff."`
	Files []string `arg:"" name:"file" help:"The policies."`
}

// Help is what "sspolicy fmt --help" adds.
func (fmtCmd) Help() string {
	return "Comments and the order of everything stay as they are. A policy with syntax errors is refused."
}

// Run executes the command.
func (c *fmtCmd) Run(p *program) error {
	changed := false
	for _, file := range c.Files {
		d, err := p.document(file)
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
			return fileError(file, err)
		}
		same := text == d.Source.Text
		changed = changed || !same
		switch {
		case c.Check && !same:
			fmt.Fprintln(p.stdout, harmless(d.Source.Name))
		case c.Diff:
			_, err = p.stdout.Write(diff.Diff(harmless(d.Source.Name), []byte(d.Source.Text), "formatted", []byte(text)))
		case c.Write && !same:
			err = p.output(file, write(text))
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
