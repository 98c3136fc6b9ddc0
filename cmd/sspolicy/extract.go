package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/secure-streams/sspolicy/internal/extract"
	"github.com/secure-streams/sspolicy/internal/project"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// extractFlags configure the reading of policies in C and templates.
type extractFlags struct {
	Template extract.Mode `enum:"auto,none,cmake,printf" default:"auto" placeholder:"KIND" help:"The placeholders that files have: cmake (@NAME@, and $${NAME} outside of strings), printf (verbs such as %d), none, or auto: all of these in C, in files that end in .in, and with --define (the default)."`
	Define   definitions  `placeholder:"NAME[=VALUE]" help:"The text of a placeholder, or of a macro in C (1). May be repeated."`
}

// definitions are values by name. On the command line, as for a C compiler, a name alone
// has the value 1.
type definitions map[string]string

// Decode adds the definition NAME or NAME=VALUE.
func (d *definitions) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("definition", &text); err != nil {
		return err
	}
	name, value, ok := strings.Cut(text, "=")
	if name == "" {
		return fmt.Errorf("%q has no name: want NAME or NAME=VALUE", text)
	}
	if !ok {
		value = "1"
	}
	if *d == nil {
		*d = definitions{}
	}
	(*d)[name] = value
	return nil
}

func (f *extractFlags) extractOptions() extract.Options {
	return extract.Options{Template: f.Template, Define: f.Define}
}

// reportUnused reports the names of --define that no file uses.
func (c *lintCmd) reportUnused(p *program) {
	for _, name := range slices.Sorted(maps.Keys(c.Define)) {
		if c.names[name] {
			continue
		}
		better := schema.Nearest(name, slices.Sorted(maps.Keys(c.names)))
		if better != "" {
			better = ": did you mean " + better + "?"
		}
		fmt.Fprintf(p.stderr, "sspolicy: --define %s: no file uses this name%s\n", harmless(name), better)
	}
}

// policies returns the policies in a file. It fails if there are none.
func (f *extractFlags) policies(file string, text []byte) ([]*extract.Policy, error) {
	policies := extract.Policies(displayName(file), text, f.extractOptions())
	if len(policies) == 0 {
		return nil, fmt.Errorf("%s: no policies in its string literals", displayName(file))
	}
	return policies, nil
}

// fixExtracted applies fixes to the policies in a file that is not itself a policy,
// and returns their number.
func (c *lintCmd) fixExtracted(p *program, t target, o lint.Options) (int, error) {
	text, err := p.read(t.file)
	if err != nil {
		return 0, fileError(t.file, err)
	}
	filter := o.Filter
	o.Filter = nil
	after, fixed := extract.Fix(displayName(t.file), text, c.extractOptions(), c.UnsafeFixes, func(policy *extract.Policy) []schema.Diagnostic {
		o := o
		o.Shape, o.Fragment = policy.Partial, c.Fragment || project.FragmentOf(policy.Document, t.config) != nil
		found := policy.Place(lint.Run(policy.Document, rules.All(), o))
		return filter(lint.Suppress(policy.Source(), found, rules.All(), o))
	})
	switch {
	case c.Diff && len(fixed) > 0:
		name := diffName(displayName(t.file))
		return len(fixed), c.diff(p, "", "a/"+name, string(text), "b/"+name, after)
	case c.Diff || len(fixed) == 0:
		return 0, nil
	}
	if !c.Quiet {
		for _, g := range fixed {
			fmt.Fprintf(p.stderr, "%s: fixed: %s [%s]\n", harmless(g.Span.String()), harmless(g.Fixes[0].Message), g.Rule)
		}
	}
	return len(fixed), p.output(t.file, write(after))
}
