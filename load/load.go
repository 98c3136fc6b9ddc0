// Package load makes a policy of a text in a running program, by the same
// reader, checks and compiler as the command sspolicy. A policy with errors in it
// is refused.
//
//	loaded, found := load.Text("policy.json", text, lint.Options{})
//	if loaded == nil {
//		return load.Err(found)
//	}
//	c, err := runtime.NewContext(loaded.Policy, runtime.Options{...})
//
// A program whose policy is known when it is built does not need this: its
// policy is Go source, see the command "sspolicy compile".
package load

import (
	"errors"
	"fmt"
	"slices"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// Loaded is a policy without errors.
type Loaded struct {
	Document *schema.Document // its text, with the fragments that were laid over it
	Policy   *policy.Policy   // its tables
}

// parserRules are the rules about what lws's parser makes of the text of a
// policy. Tables hold what the text says, so that it is a warning to them.
var parserRules = []string{
	"bad-length", "cert-too-big", "dotted-name", "joined-certs", "leading-text", "long-name", "long-number", "name-not-first",
	"options-key", "prefix-match", "shared-server-cert", "shared-storage", "surrogate-pair", "too-deep",
}

// Text reads a policy and makes tables of it. The name is the one that messages
// call it by; it is never opened. What is found is returned: errors, for which
// the policy is refused and Loaded is nil, and warnings. That only the parser of
// lws would take something amiss is a warning.
func Text(name string, text []byte, o lint.Options) (*Loaded, []schema.Diagnostic) {
	return Document(schema.Parse(name, text), o)
}

// Document is Text for what has been read already. Fragments are laid over it
// first, one after the other, as package overlay does. Documents are not changed.
func Document(d *schema.Document, o lint.Options, fragments ...*schema.Document) (*Loaded, []schema.Diagnostic) {
	d, found := overlay.Apply(d, fragments...)
	if d == nil {
		return nil, found
	}
	filter := o.Filter
	o.Filter = func(found []schema.Diagnostic) []schema.Diagnostic {
		if filter != nil {
			found = filter(found)
		}
		for i := range found {
			if d := &found[i]; d.Severity == schema.Error && slices.Contains(parserRules, d.Rule) {
				d.Severity = schema.Warning
			}
		}
		return found
	}
	found = append(found, lint.Run(d, rules.All(), o)...)
	if schema.HasErrors(found) {
		return nil, found
	}
	p, more := codegen.Compile(schema.NewPolicy(d))
	found = append(found, more...)
	if schema.HasErrors(found) {
		return nil, found
	}
	return &Loaded{d, p}, found
}

// Overlay lays fragments over a policy that has been loaded. What it returns is
// for Overlay of a [runtime.Context].
func (l *Loaded) Overlay(o lint.Options, fragments ...*schema.Document) (*Loaded, []schema.Diagnostic) {
	return Document(l.Document, o, fragments...)
}

// ErrRefused is what Err returns, to compare with [errors.Is].
var ErrRefused = errors.New("the policy is refused")

// Err returns an error that tells the first of the errors found, and how many
// more there are; nil if there are none.
func Err(found []schema.Diagnostic) error {
	errs := slices.DeleteFunc(slices.Clone(found), func(d schema.Diagnostic) bool { return d.Severity != schema.Error })
	if len(errs) == 0 {
		return nil
	}
	more := ""
	if len(errs) > 1 {
		more = fmt.Sprintf(", and %d more", len(errs)-1)
	}
	return fmt.Errorf("sspolicy: %w: %v: %s [%s]%s", ErrRefused, errs[0].Span, errs[0].Message, errs[0].Rule, more)
}

// Func returns a function that makes tables of a text, or an error that wraps
// ErrRefused. Packages that must not import this one take it as an option.
func Func(name string, o lint.Options) func(text []byte) (*policy.Policy, error) {
	return func(text []byte) (*policy.Policy, error) {
		l, found := Text(name, text, o)
		if l == nil {
			return nil, Err(found)
		}
		return l.Policy, nil
	}
}
