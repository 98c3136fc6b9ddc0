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

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/readfile"
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

// Options configure how a policy is loaded. The zero value is ready to use.
type Options struct {
	Overlays []string // fragment files, applied in order
	Lint     lint.Options

	// MaxTokens limits the number of tokens of the policy, without overlays, and so
	// the memory and time that a text costs. Strings, numbers, brackets, colons,
	// commas and comments are tokens. 0 means no limit; for [Loader] it means
	// [DefaultMaxTokens].
	MaxTokens int
}

// DefaultMaxTokens is the limit that [Loader] applies by default. A text of this
// size costs about 100 MB of allocations and half a second. Policies of devices
// have up to a few thousand tokens.
const DefaultMaxTokens = 50_000

// An Error reports a policy that has errors. [Load], [Parse], [Compile] and the
// functions of [Loader] return it as *Error.
type Error struct {
	Diagnostics []schema.Diagnostic // errors, warnings and infos, sorted by position
}

// Error describes the first error and says how many more there are.
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

// Load loads the policy in a file. It returns an [*Error] if the policy or an
// overlay has errors, and any other error if a file cannot be read.
func Load(file string, o Options) (*Policy, error) {
	text, err := readfile.Any(file, schema.MaxSize)
	if err != nil {
		return nil, err
	}
	return Parse(file, text, o)
}

// Parse loads the policy in text. Positions in diagnostics begin with name; no file
// of that name is opened.
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
		text, err := readfile.Any(file, schema.MaxSize)
		if err != nil {
			return nil, err
		}
		fragments = append(fragments, schema.Parse(file, text))
	}
	return Compile(d, o.Lint, fragments...)
}

// Loader returns a function that parses a policy as [Parse] does and returns its
// compiled form. Packages such as runtime/system take such a function as an option.
// The text may come from a network; see [Options.MaxTokens].
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

// Compile applies fragments to d in order, as [Overlay] does, and compiles the
// result. It does not change the documents.
//
// Errors that affect only lws's JSON parser are warnings, since the compiled form
// does not pass through that parser.
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
