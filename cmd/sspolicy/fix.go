package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// fixFlags are the flags of lint that apply fixes.
type fixFlags struct {
	Fix         bool `help:"Apply the safe fixes to the files, list them, and report the rest. Standard input goes to standard output, and the report to standard error."`
	UnsafeFixes bool `help:"Apply the unsafe fixes too, which may change the meaning of a policy or remove settings."`
	Diff        bool `help:"With --fix: change nothing, print what would change as a unified diff, and fail if there is something."`
}

// Validate checks the flags.
func (f *fixFlags) Validate() error {
	if f.UnsafeFixes {
		f.Fix = true
	}
	if f.Diff && !f.Fix {
		return errors.New("--diff needs --fix")
	}
	return nil
}

// fix fixes a document and writes it back, or to standard output if it is from
// standard input. With --diff it prints the difference. It reports whether there
// is one.
func (f *fixFlags) fix(p *program, file string, d *schema.Document, o lint.Options, quiet bool) (fixed *schema.Document, changed bool, err error) {
	o.UnsafeFixes = f.UnsafeFixes
	fixed, mended := lint.Fix(d, rules.All(), o)
	changed = len(mended) > 0
	switch {
	case f.Diff && changed:
		name := diffName(d.Source.Name)
		_, err = p.stdout.Write(diff.Diff("a/"+name, []byte(d.Source.Text), "b/"+name, []byte(fixed.Source.Text)))
	case f.Diff:
	case changed || file == "-":
		err = p.output(file, write(fixed.Source.Text))
	}
	if err == nil && !f.Diff && !quiet {
		for _, g := range mended {
			fmt.Fprintf(p.stderr, "%s: fixed: %s [%s]\n", harmless(g.Span.String()), harmless(g.Fixes[0].Message), g.Rule)
		}
	}
	return fixed, changed, err
}

// diffName returns a file's name in the form that git apply takes.
func diffName(name string) string {
	if abs, err := filepath.Abs("."); err == nil && filepath.IsAbs(name) {
		if rel, err := filepath.Rel(abs, name); err == nil && filepath.IsLocal(rel) {
			name = rel
		}
	}
	return harmless(strings.TrimPrefix(filepath.ToSlash(filepath.Clean(name)), "/"))
}
