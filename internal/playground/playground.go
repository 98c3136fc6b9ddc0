// Package playground answers the requests of the page that checks and compiles policies in
// a browser.
package playground

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/graph"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// Limits of a text. They bound the memory that a shared link can cost.
const (
	MaxSize   = 1 << 20
	MaxTokens = 200_000
)

// maxNodes is the maximum number of definitions in a picture: browsers take long
// for larger ones.
const maxNodes = 1000

// The names of the two texts in messages.
const (
	policyName   = "policy.json"
	fragmentName = "fragment.json"
)

// A Request requests one view of a policy.
type Request struct {
	View     string `json:"view"` // a key of the table views
	Policy   string `json:"policy"`
	Fragment string `json:"fragment"` // applied to the policy; may be blank
	LWS      string `json:"lws"`      // a version, or "" for the latest
}

// A Response holds the view of a Request.
type Response struct {
	Error string `json:"error,omitempty"` // there is nothing to show, and why
	Text  string `json:"text,omitempty"`

	Findings  []Finding   `json:"findings,omitempty"`
	Versions  []string    `json:"versions,omitempty"` // of lws
	Footprint []Footprint `json:"footprint,omitempty"`
	Changes   []Change    `json:"changes,omitempty"`
	Pictures  []Picture   `json:"pictures,omitempty"`
}

// A Footprint is a row of the table of sizes: the bytes of one kind on each architecture.
type Footprint struct {
	Kind  string `json:"kind"`
	Bytes []any  `json:"bytes"`
}

// A Change is a setting that the fragment changes. Before and After are JSON.
type Change struct {
	Path   string `json:"path"`
	Before string `json:"before"` // "" if it is new
	After  string `json:"after"`  // "" if it is removed
	Why    string `json:"why,omitempty"`
}

// A Finding is a diagnostic. Offsets count UTF-16 code units, as JavaScript does.
type Finding struct {
	In       string    `json:"in"` // "policy" or "fragment"
	Severity string    `json:"severity"`
	Rule     string    `json:"rule"`
	Message  string    `json:"message"`
	Line     int       `json:"line"`
	Column   int       `json:"column"`
	From     int       `json:"from"`
	To       int       `json:"to"`
	Related  []Related `json:"related,omitempty"`
	Fixes    []Fix     `json:"fixes,omitempty"`
}

// A Related is another place that a finding is about.
type Related struct {
	Message string `json:"message"`
	Line    int    `json:"line"`
	From    int    `json:"from"`
	To      int    `json:"to"`
}

// A Fix is a set of edits of the text of its finding.
type Fix struct {
	Message string `json:"message"`
	Safe    bool   `json:"safe"`
	Edits   []Edit `json:"edits"`
}

// An Edit replaces a part of a text.
type Edit struct {
	From   int    `json:"from"`
	To     int    `json:"to"`
	Insert string `json:"insert"`
}

// views are the functions that answer requests.
var views = map[string]func(*input) (Response, error){
	"findings":  findings,
	"fix":       fix,
	"format":    format,
	"c":         cSource,
	"go":        goSource,
	"footprint": footprint,
	"overlay":   overlaid,
	"graph":     picture,
	"retry":     retries,
	"versions":  versions,
}

// input holds the policies of a request.
type input struct {
	policy   *schema.Document
	fragment *schema.Document // nil if blank
	lws      schema.Version
	options  lint.Options
}

// Answer answers a request, both in JSON. It never panics.
func Answer(request string) (response string) {
	defer func() {
		if e := recover(); e != nil {
			response = encode(Response{Error: fmt.Sprintf("a bug in sspolicy, please report it: %v", e)})
		}
	}()
	r, err := answer(request)
	if err != nil {
		r = Response{Error: err.Error()}
	}
	return encode(r)
}

func encode(r Response) string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return string(b)
}

func answer(text string) (Response, error) {
	var r Request
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Response{}, err
	}
	view := views[r.View]
	if view == nil {
		return Response{}, fmt.Errorf("unknown view %q", r.View)
	}
	in := &input{lws: schema.Latest()}
	if r.LWS != "" {
		if err := in.lws.UnmarshalText([]byte(r.LWS)); err != nil {
			return Response{}, err
		}
	}
	in.options = lint.Options{LWS: []schema.Version{in.lws}}
	var err error
	if in.policy, err = parse(policyName, r.Policy); err != nil {
		return Response{}, err
	}
	if strings.TrimSpace(r.Fragment) != "" {
		if in.fragment, err = parse(fragmentName, r.Fragment); err != nil {
			return Response{}, err
		}
	}
	return view(in)
}

func parse(name, text string) (*schema.Document, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%s has more than %d kB, the limit of this page", name, MaxSize>>10)
	}
	if schema.TokenOffset(text, MaxTokens) >= 0 {
		return nil, fmt.Errorf("%s has more than %d tokens, the limit of this page", name, MaxTokens)
	}
	return schema.Parse(name, []byte(text)), nil
}

// fragments returns the fragments to apply.
func (in *input) fragments() []*schema.Document {
	if in.fragment == nil {
		return nil
	}
	return []*schema.Document{in.fragment}
}

// compile compiles the policy with the fragment.
func (in *input) compile() (*sspolicy.Policy, error) {
	p, err := sspolicy.Compile(in.policy, in.options, in.fragments()...)
	if refused, ok := errors.AsType[*sspolicy.Error](err); ok {
		return nil, fmt.Errorf("the policy has errors: %w", refused)
	}
	return p, err
}

func findings(in *input) (Response, error) {
	r := Response{Findings: []Finding{}}
	add := func(name string, d *schema.Document, found []schema.Diagnostic) {
		at := newOffsets(d.Source)
		for _, g := range found {
			if g.Span.Source == d.Source {
				r.Findings = append(r.Findings, newFinding(name, at, g))
			}
		}
	}
	add("policy", in.policy, lint.Run(in.policy, rules.All(), in.options))
	if in.fragment != nil {
		o := sspolicy.Overlay(in.policy, in.fragments(), overlay.Options{}, in.options)
		add("fragment", in.fragment, o.Diagnostics)
	}
	return r, nil
}

// versions returns the known release lines of lws, newest first.
func versions(*input) (r Response, _ error) {
	for _, v := range slices.Backward(schema.Versions) {
		r.Versions = append(r.Versions, v.String())
	}
	return r, nil
}

func newFinding(name string, at *offsets, g schema.Diagnostic) Finding {
	p := g.Span.Position()
	f := Finding{
		In: name, Severity: g.Severity.String(), Rule: g.Rule, Message: g.Message,
		Line: p.Line, Column: p.Column, From: at.utf16(g.Span.Start), To: at.utf16(g.Span.End),
	}
	for _, rel := range g.Related {
		if rel.Span.Source == at.source {
			f.Related = append(f.Related, Related{rel.Message, rel.Span.Position().Line, at.utf16(rel.Span.Start), at.utf16(rel.Span.End)})
		}
	}
	for _, x := range g.Fixes {
		fix := Fix{Message: x.Message, Safe: x.Safe}
		for _, e := range x.Edits {
			if e.Span.Source == at.source {
				fix.Edits = append(fix.Edits, Edit{at.utf16(e.Span.Start), at.utf16(e.Span.End), e.NewText})
			}
		}
		if len(fix.Edits) == len(x.Edits) {
			f.Fixes = append(f.Fixes, fix)
		}
	}
	return f
}

// fix returns the policy with all safe fixes.
func fix(in *input) (Response, error) {
	d, _ := lint.Fix(in.policy, rules.All(), in.options)
	return Response{Text: d.Source.Text}, nil
}

func format(in *input) (Response, error) {
	text, err := schema.Format(in.policy)
	return Response{Text: text}, err
}

// sources names the sources of a generated file.
func (in *input) sources() string {
	if in.fragment == nil {
		return policyName
	}
	return policyName + ", with " + fragmentName
}

func (in *input) cOptions() codegen.COptions {
	return codegen.COptions{Source: in.sources(), Target: codegen.Target(in.lws.Line())}
}

func cSource(in *input) (Response, error) {
	p, err := in.compile()
	if err != nil {
		return Response{}, err
	}
	var b bytes.Buffer
	err = codegen.C(&b, p.Policy, in.cOptions())
	return Response{Text: b.String()}, err
}

func goSource(in *input) (Response, error) {
	p, err := in.compile()
	if err != nil {
		return Response{}, err
	}
	var b bytes.Buffer
	err = codegen.Go(&b, p.Policy, codegen.GoOptions{Source: in.sources()})
	return Response{Text: b.String()}, err
}

func footprint(in *input) (Response, error) {
	p, err := in.compile()
	if err != nil {
		return Response{}, err
	}
	sizes, err := codegen.CFootprint(p.Policy, in.cOptions())
	if err != nil {
		return Response{}, err
	}
	head := Footprint{Kind: "bytes for lws " + in.lws.Line().String()}
	for _, f := range sizes {
		head.Bytes = append(head.Bytes, f.ABI)
	}
	r := Response{Footprint: []Footprint{head}}
	for i, f := range sizes {
		for j, part := range f.Parts() {
			if i == 0 {
				r.Footprint = append(r.Footprint, Footprint{Kind: part.Kind})
			}
			r.Footprint[j+1].Bytes = append(r.Footprint[j+1].Bytes, part.Bytes)
		}
	}
	return r, nil
}

// overlay applies the fragment to the policy.
func (in *input) overlay() (overlay.Result, error) {
	o := sspolicy.Overlay(in.policy, in.fragments(), overlay.Options{}, in.options)
	if o.Document != nil {
		return o, nil
	}
	err := errors.New("the fragment cannot be applied")
	if i := slices.IndexFunc(o.Diagnostics, func(d schema.Diagnostic) bool { return d.Severity == schema.Error }); i >= 0 {
		err = fmt.Errorf("%w: %v: %s", err, o.Diagnostics[i].Span, o.Diagnostics[i].Message)
	}
	return o, err
}

// picture draws the policy, with its mistakes.
func picture(in *input) (Response, error) {
	d := in.policy
	if in.fragment != nil {
		o, err := in.overlay()
		if err != nil {
			return Response{}, err
		}
		d = o.Document
	}
	g := graph.New(schema.NewPolicy(d))
	switch n := len(g.Nodes); {
	case n == 0:
		return Response{Text: "The policy defines nothing to draw."}, nil
	case n > maxNodes:
		return Response{}, fmt.Errorf("the policy has %d definitions, too many for a picture here: sspolicy graph draws them", n)
	}
	return Response{Pictures: []Picture{{"Streamtypes by endpoint, and what they refer to", g.SVG()}}}, nil
}

// overlaid returns the changes of the fragment: a unified diff, and a list.
func overlaid(in *input) (Response, error) {
	if in.fragment == nil {
		return Response{}, nil
	}
	o, err := in.overlay()
	if err != nil {
		return Response{}, err
	}
	r := Response{Text: string(diff.Diff("a/"+policyName, []byte(in.policy.Source.Text), "b/"+policyName, []byte(o.Document.String())))}
	for _, c := range o.Changes {
		r.Changes = append(r.Changes, Change{c.Path(), plain(c.Before), plain(c.After), c.Why})
	}
	return r, nil
}

func plain(v *schema.Value) string {
	if v == nil {
		return ""
	}
	return string(overlay.Plain(v))
}
