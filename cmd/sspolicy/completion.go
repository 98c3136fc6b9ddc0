package main

import (
	"io"
	"slices"

	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/internal/clidoc"
	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish,powershell" help:"bash, zsh, fish or powershell."`
}

// Run executes the command.
func (c *completionCmd) Run(p *program, ctx *kong.Context) error {
	script, err := clidoc.Script(c.Shell, ctx.Model.Name)
	if err != nil {
		return err
	}
	return p.output("", write(script))
}

type manCmd struct{}

// Run executes the command.
func (manCmd) Run(p *program, ctx *kong.Context) error {
	return p.output("", write(clidoc.Man(ctx.Model)))
}

// complete writes the completions of a command line.
func (p *program) complete(app *kong.Application, words []string) error {
	list := func(names []string) func([]string) []string { return func([]string) []string { return names } }
	var versions, formats []string
	for _, v := range schema.Versions {
		versions = append(versions, v.String())
	}
	for _, f := range report.Formats() {
		formats = append(formats, string(f))
	}
	return clidoc.Complete(p.stdout, app, clidoc.Values{
		"names": list(explain.Names()), "faults": list(faultNames()), "groups": list(rules.Groups()), "versions": list(versions), "formats": list(formats),
		"streamtypes":  p.streamTypeNames,
		"faultstreams": func(args []string) []string { return p.streamTypeNames(args[min(1, len(args)):]) }, // after the fault
	}, words)
}

// streamTypeNames returns the names of the streamtypes of the policy that the
// first argument names, or of the base of a fragment.
func (p *program) streamTypeNames(args []string) (names []string) {
	if len(args) == 0 || args[0] == "-" {
		return nil
	}
	quiet := &program{stdin: p.stdin, stdout: io.Discard, stderr: io.Discard}
	d, _, err := quiet.assemble(args[0], nil)
	if err != nil {
		return nil
	}
	for _, def := range schema.NewPolicy(d).Section(schema.Streams) {
		names = append(names, def.Name)
	}
	slices.Sort(names)
	return names
}
