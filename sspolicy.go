// Package sspolicy loads a Secure Streams policy of libwebsockets (lws): it reads
// the file, applies overlays, checks the result as the command sspolicy does, and
// compiles it.
//
//	p, err := sspolicy.Load("policy.json", sspolicy.Options{})
//	if err != nil {
//		return err
//	}
//	c, err := runtime.NewContext(p.Policy, runtime.Options{...})
//
// Package [runtime] executes the compiled policy. A program whose policy is known
// when it is built does not need this package: "sspolicy compile" makes Go source
// of the policy.
package sspolicy

import (
	"fmt"
	"os"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// A Policy is a compiled policy and what it was compiled from.
type Policy struct {
	Policy      *policy.Policy
	Document    *schema.Document    // the text, with overlays applied
	Diagnostics []schema.Diagnostic // warnings and infos, sorted by position
}

// Options are how a policy is loaded. The zero value is ready to use.
type Options struct {
	Overlays []string // files of fragments, applied in order
	Lint     lint.Options

	// MaxTokens is the maximum number of tokens of the policy, without overlays: of
	// strings, numbers, brackets, colons, commas and comments. It limits the memory
	// and time that a text costs. 0 means no limit, for Loader DefaultMaxTokens.
	MaxTokens int
}

// DefaultMaxTokens is the limit of Loader: a text within it costs about 100 MB of
// allocations and half a second. Policies of devices have up to a few thousand.
const DefaultMaxTokens = 50_000

// An Error reports a policy that has errors. Load and the other functions return
// it as *Error.
type Error struct {
	Diagnostics []schema.Diagnostic // errors, warnings and infos, sorted by position
}

// Error describes the first error and counts the others.
func (e *Error) Error() string {
	var first *schema.Diagnostic
	more := -1
	for i := range e.Diagnostics {
		if d := &e.Diagnostics[i]; d.Severity == schema.Error {
			if first == nil {
				first = d
			}
			more++
		}
	}
	if first == nil {
		return "invalid policy"
	}
	text := fmt.Sprintf("%v: %s [%s]", first.Span, first.Message, first.Rule)
	if more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// Load loads the policy in a file. If the policy or an overlay has errors, the
// error is an [*Error]; if a file cannot be read, it is an error of package os.
func Load(file string, o Options) (*Policy, error) {
	text, err := read(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, text, o)
}

// Parse loads the policy in a text. Positions in diagnostics begin with name,
// which is never opened.
func Parse(name string, text []byte, o Options) (*Policy, error) {
	if o.MaxTokens > 0 {
		if at := schema.TokenOffset(string(text), o.MaxTokens); at >= 0 {
			src := &schema.Source{Name: name, Text: string(text)}
			return nil, &Error{[]schema.Diagnostic{{
				Rule: schema.RuleSyntax, Severity: schema.Error, Span: schema.Span{Source: src, Start: at, End: at},
				Message: fmt.Sprintf("the policy has more than %d tokens, the limit for this program", o.MaxTokens),
			}}}
		}
	}
	d := schema.Parse(name, text)
	var fragments []*schema.Document
	for _, file := range o.Overlays {
		text, err := read(file)
		if err != nil {
			return nil, err
		}
		fragments = append(fragments, schema.Parse(file, text))
	}
	return Compile(d, o.Lint, fragments...)
}

// Loader returns a function that loads a policy as Parse does and returns its
// compiled form, for packages that take such a function as an option. Its texts may come
// from a network: see Options.MaxTokens.
func Loader(name string, o Options) func(text []byte) (*policy.Policy, error) {
	if o.MaxTokens == 0 {
		o.MaxTokens = DefaultMaxTokens
	}
	return func(text []byte) (*policy.Policy, error) {
		p, err := Parse(name, text, o)
		if err != nil {
			return nil, err
		}
		return p.Policy, nil
	}
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := schema.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return text, nil
}

// Compile compiles a document with fragments applied in order, as [Overlay] does. It
// does not change the documents.
//
// The compiled form holds what the text says. Errors that affect only lws's JSON
// parser are therefore warnings.
func Compile(d *schema.Document, o lint.Options, fragments ...*schema.Document) (*Policy, error) {
	all, filter := rules.All(), o.Filter
	o.Filter = func(diags []schema.Diagnostic) []schema.Diagnostic {
		if filter != nil {
			diags = filter(diags)
		}
		for i := range diags {
			if r := lint.Lookup(all, diags[i].Rule); r != nil && r.ParserOnly {
				diags[i].Severity = min(diags[i].Severity, schema.Warning)
			}
		}
		return diags
	}
	var diags []schema.Diagnostic
	if len(fragments) == 0 {
		diags = lint.Run(d, all, o)
	} else {
		r := Overlay(d, fragments, overlay.Options{}, o)
		d, diags = r.Document, r.Diagnostics
	}
	if schema.HasErrors(diags) {
		return nil, &Error{diags}
	}
	p, more := codegen.Compile(schema.NewPolicy(d))
	diags = schema.SortDiagnostics(append(diags, more...))
	if schema.HasErrors(diags) {
		return nil, &Error{diags}
	}
	return &Policy{p, d, diags}, nil
}
