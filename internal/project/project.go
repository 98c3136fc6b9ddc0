// Package project lints policies and fragments according to the configuration of a
// project, for the command line and for editors.
package project

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// A Reader reads and parses the policy in a file.
type Reader func(file string) (*schema.Document, error)

// Day is the unit of settings and flags for certificates.
const Day = 24 * time.Hour

// Options returns the options of a configuration, without a Filter.
func Options(c *config.Config) lint.Options {
	o := lint.Options{LWS: c.LWS, CertWarn: 30 * Day, With: c.With, Rules: c.OwnRules()}
	if c.CertWarn >= 0 {
		o.CertWarn = c.CertWarn
	}
	return o
}

// A Fragment holds the base of a fragment.
type Fragment struct {
	Base string      // the file of the policy; "" for any policy
	At   schema.Span // position of that setting in the fragment or the configuration
}

// FragmentOf returns the base of a document according to its x-sspolicy or, without
// one, its configuration. It returns nil for a policy.
func FragmentOf(d *schema.Document, c *config.Config) *Fragment {
	if name, at, ok := overlay.Base(d); ok {
		if name = filepath.FromSlash(name); name != "" && !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(d.Source.Name), name)
		}
		return &Fragment{name, at}
	}
	if base, at, ok := c.Fragment(d.Source.Name); ok {
		return &Fragment{base, at}
	}
	return nil
}

// A BaseError is returned when the base of a fragment is unusable.
type BaseError struct {
	At  schema.Span // where the fragment or the configuration names the base
	Err error
}

func (e *BaseError) Error() string { return fmt.Sprintf("%v: the base policy: %v", e.At, e.Err) }

func (e *BaseError) Unwrap() error { return e.Err }

// Read reads the base. It returns nil for a fragment for any policy, and if f is
// nil. The error is a *BaseError.
func (f *Fragment) Read(c *config.Config, read Reader) (*schema.Document, error) {
	if f == nil || f.Base == "" {
		return nil, nil
	}
	base, err := read(f.Base)
	if err == nil && FragmentOf(base, c) != nil {
		err = fmt.Errorf("%s is a fragment too", f.Base)
	}
	if err != nil {
		return nil, &BaseError{f.At, err}
	}
	return base, nil
}

// Lint returns the findings of a policy, or of a fragment over its base.
func Lint(d *schema.Document, c *config.Config, read Reader, o lint.Options) ([]schema.Diagnostic, error) {
	f := FragmentOf(d, c)
	o.Fragment = f != nil
	base, err := f.Read(c, read)
	if err != nil {
		return nil, err
	}
	if base == nil {
		return lint.Run(d, rules.All(), o), nil
	}
	over := o
	over.Fragment = false
	over.Filter = func(found []schema.Diagnostic) []schema.Diagnostic {
		found = slices.DeleteFunc(found, func(g schema.Diagnostic) bool { return g.Span.Source != d.Source })
		if o.Filter != nil {
			found = o.Filter(found)
		}
		return found
	}
	r := sspolicy.Overlay(base, []*schema.Document{d}, overlay.Options{}, over)
	if r.Document == nil && len(r.Diagnostics) == 0 { // the base has syntax errors
		g := schema.Diagnostic{Rule: schema.RuleSyntax, Severity: schema.Warning, Span: f.At,
			Message: fmt.Sprintf("the base policy %s has syntax errors: only keys, types and ranges of the fragment are checked", f.Base)}
		if f.At.Source != d.Source {
			g.Span = d.Root.Span.First()
		}
		return schema.SortDiagnostics(append(lint.Run(d, rules.All(), o), g)), nil
	}
	return r.Diagnostics, nil
}
