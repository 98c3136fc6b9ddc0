// Package overlay applies fragments to a policy.
//
// A fragment is a policy that holds only differences: settings of streamtypes, and
// definitions such as a trust store for a test. [Apply] merges it as its author
// means it, or as the overlay function of an lws release does
// (lws_ss_policy_overlay), which differs in many ways.
package overlay

import (
	"github.com/secure-streams/sspolicy/schema"
)

// Options configure how fragments are applied. The zero value is ready to use.
type Options struct {
	// AllowNew lets a fragment add streamtypes. Otherwise a name that the base does
	// not have is an error, since it is probably misspelt.
	AllowNew bool

	// LWS, if not zero, makes [Apply] do what the overlay function of this lws
	// version does. The document is then what lws holds afterwards, and each
	// deviation from the author's intent has a diagnostic. After an error, the
	// settings before it stay applied, as in lws.
	LWS schema.Version
}

// A Result is a document with fragments applied, and the changes that led to it.
type Result struct {
	// Document is the base with the fragments applied. It is nil if the base has
	// syntax errors and, unless Options.LWS is set, if Diagnostics has errors. Each
	// value keeps the source that it came from.
	Document *schema.Document

	// Changes are the changes of settings, in the order they were made.
	Changes []Change

	// Diagnostics are the findings about the fragments, sorted by position. They
	// are about each fragment alone; package lint checks the document.
	Diagnostics []schema.Diagnostic
}

// A Change is a change to one setting or definition.
type Change struct {
	Section schema.Section // of the definition; Top for a setting of the policy
	Name    string         // of the definition
	Key     string         // the setting; empty if the whole definition changes
	Item    string         // entry of a list by name: the metadata item or HTTP status

	// Before and After are the values. Nil means no value.
	Before, After *schema.Value

	// By is the position of the change in the fragment: the key and its value.
	By schema.Span

	// Definition is the position of the definition in the source that defines it.
	Definition schema.Span

	// Why is the reason for a change that the fragment does not spell out, such as
	// "protocol changes to mqtt".
	Why string
}

// Path returns the path of the change, such as "s.api.port".
func (c *Change) Path() string {
	path := string(c.Section)
	for _, part := range []string{c.Name, c.Key, c.Item} {
		if part != "" && path != "" {
			path += "."
		}
		path += part
	}
	return path
}

// Apply applies fragments to a document in order. It does not change the documents.
//
// A setting of a streamtype replaces the setting of the base or is added, and null
// removes it. Metadata items and entries of http_resp_map are replaced, added and
// removed one by one, by name. A definition in another section, such as a trust
// store, is added or replaces the definition of that name. Null removes a backoff
// scheme, certificate or streamtype. Names match exactly. The rest of the base
// stays as it is, including comments and white space. The members $schema and
// x-sspolicy of a fragment describe the fragment and are not applied.
//
// An endpoint that is a URL or host:port also replaces the port, path and tls of
// the base, unless the fragment sets one of them. A change of the protocol removes
// the settings of the base that the new protocol does not use and that lws stores
// in the place of the new protocol's own.
func Apply(base *schema.Document, fragments []*schema.Document, o Options) Result {
	e := newEditor(base)
	e.report(base.Syntax)
	if other := base.NotPolicy(); other != nil {
		e.report([]schema.Diagnostic{*other})
	}
	if schema.HasErrors(e.diags) {
		return Result{Diagnostics: e.diagnostics()}
	}
	if o.LWS != (schema.Version{}) {
		l := newLWS(e, o.LWS)
		for _, f := range fragments {
			l.apply(f)
		}
		return Result{e.result, e.changes, e.diagnostics()}
	}
	a := &author{editor: e, options: o}
	for _, f := range fragments {
		a.apply(f)
	}
	diags := e.diagnostics()
	if schema.HasErrors(diags) {
		return Result{Diagnostics: diags}
	}
	return Result{e.result, e.changes, diags}
}

// The rules that Apply reports.
const (
	RuleUnknownStreamtype = "overlay-unknown-streamtype"
	RuleNoEffect          = "overlay-no-effect"
	RuleBeyondLWS         = "overlay-beyond-lws"
	RuleDroppedSettings   = "overlay-dropped-settings"
)

// Base returns the name of the policy that a fragment says it is for, in its
// setting "base" of x-sspolicy, and where it says so. The name is relative to the
// folder of the fragment; it is empty for a fragment for any policy.
func Base(d *schema.Document) (name string, at schema.Span, ok bool) {
	settings := last(d.Corrected().Root.Object, "x-sspolicy")
	if settings == nil {
		return "", schema.Span{}, false
	}
	base := last(settings.Value.Object, "base")
	if base == nil || base.Value.Kind != schema.String {
		return "", schema.Span{}, false
	}
	return base.Value.Text(), d.Origin(base.Value.Span), true
}
