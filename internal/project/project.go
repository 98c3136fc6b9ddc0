// Package project lints policies and fragments as a project is configured, for the
// command line and for editors.
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

// Day is the unit of settings and flags about certificates.
const Day = 24 * time.Hour

// Options returns the options that a configuration stands for, without a Filter.
func Options(c *config.Config) lint.Options {
	o := lint.Options{LWS: c.LWS, CertWarn: 30 * Day, With: c.With, Rules: c.OwnRules()}
	if c.CertWarn >= 0 {
		o.CertWarn = c.CertWarn
	}
	return o
}

// Base reads the policy that a fragment names as its base. It returns nil if d is not a
// fragment, or one for any policy.
func Base(d *schema.Document, read Reader) (*schema.Document, error) {
	name, at, _ := overlay.Base(d)
	if name == "" {
		return nil, nil
	}
	base, err := read(BaseFile(d.Source.Name, name))
	if err != nil {
		return nil, fmt.Errorf("%v: the base policy: %w", at, err)
	}
	return base, nil
}

// BaseFile returns the file that a fragment means by the name of its base.
func BaseFile(fragment, base string) string {
	base = filepath.FromSlash(base)
	if filepath.IsAbs(base) {
		return base
	}
	return filepath.Join(filepath.Dir(fragment), base)
}

// Lint returns the findings of a policy, or of a fragment over the base that it names.
func Lint(d *schema.Document, read Reader, o lint.Options) ([]schema.Diagnostic, error) {
	_, _, o.Fragment = overlay.Base(d)
	base, err := Base(d, read)
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
		return lint.Run(d, rules.All(), o), nil
	}
	return r.Diagnostics, nil
}
