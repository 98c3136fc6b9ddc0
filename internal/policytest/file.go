// Package policytest tests policies: a file describes the behaviour of streams of a policy,
// and the runtime executes the policy to check it.
package policytest

import (
	_ "embed"
	"path/filepath"

	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/schema"
)

// Rule is the rule that the diagnostics of this package name.
const Rule = "test"

// JSONSchema is the JSON Schema (draft 2020-12) of a test file.
//
//go:embed policytest.schema.json
var JSONSchema string

// A File is a test file.
type File struct {
	Source   *schema.Source
	Policy   string   // relative to the file; resolved
	Overlays []string // relative to the file; resolved
	Tests    []*Test
}

// A Test describes the behaviour of one stream. Without LWS, it applies to the runtime of
// sspolicy.
type Test struct {
	Name     string
	At       schema.Span // of the test
	Stream   string
	LWS      *schema.Version
	Metadata []Item
	Fault    *faulttest.Fault // nil for none
	Args     faulttest.Args

	at     map[string]schema.Span // places of the settings
	value  *schema.Value          // the test
	expect *schema.Value          // its expectations, or nil
}

// An Item is a value of metadata.
type Item struct {
	Name, Value string
	At          schema.Span
}

// Parse reads a test file: JSON with comments and trailing commas. It returns mistakes as
// diagnostics. A test for several versions of lws becomes several tests.
func Parse(file string, text []byte) (*File, []schema.Diagnostic) {
	d, _, wrong := config.Document(file, text)
	f := &File{Source: d.Source}
	if wrong != nil {
		wrong.Rule = Rule
		return f, []schema.Diagnostic{*wrong}
	}
	r := &reader{config.Reader{Rule: Rule}}
	path := func(v *schema.Value) string {
		name := filepath.FromSlash(r.Text(v))
		if name != "" && !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), name)
		}
		return name
	}
	if isPolicy(&d.Root) {
		r.Errorf(d.Root.Span.First(), `this is a policy, not a test file: pass a file such as {"policy": %s, "tests": [{"stream": "NAME"}]}; --write fills in what streams do`, schema.QuoteName(filepath.Base(file)))
		return f, r.Found
	}
	r.Object(&d.Root, map[string]func(*schema.Value){
		"$schema": func(v *schema.Value) { r.Text(v) },
		"policy":  func(v *schema.Value) { f.Policy = path(v) },
		"overlays": func(v *schema.Value) {
			r.List(v, func(e *schema.Value) { f.Overlays = append(f.Overlays, path(e)) })
		},
		"tests": func(v *schema.Value) {
			r.List(v, func(e *schema.Value) { f.Tests = append(f.Tests, r.tests(e)...) })
		},
	})
	if d.Root.Kind == schema.ObjectKind && len(r.Found) == 0 {
		if f.Policy == "" {
			r.Errorf(d.Root.Span.First(), "missing policy: the name of the policy, from the folder of this file")
		}
		if len(f.Tests) == 0 {
			r.Errorf(d.Root.Span.First(), "missing tests")
		}
	}
	return f, schema.SortDiagnostics(r.Found)
}

// Is reports whether a text is a test file: an object with a policy and a list of tests.
func Is(text []byte) bool {
	d, _, wrong := config.Document("", text)
	if wrong != nil {
		return false
	}
	policy, tests := false, false
	for _, m := range d.Root.Members() {
		policy = policy || m.Key == "policy" && m.Value.Kind == schema.String
		tests = tests || m.Key == "tests" && m.Value.Kind == schema.ArrayKind
	}
	return policy && tests
}

// isPolicy reports whether a document has a section of a policy, and no setting of a test
// file.
func isPolicy(v *schema.Value) bool {
	section := false
	for _, m := range v.Members() {
		switch m.Key {
		case "policy", "overlays", "tests":
			return false
		}
		k := schema.LookupKey(schema.Top, m.Key)
		section = section || k != nil && k.Is("array")
	}
	return section
}

type reader struct{ config.Reader }

// tests reads a test, and returns a copy for each of its versions of lws.
func (r *reader) tests(v *schema.Value) []*Test {
	t := Test{At: v.Span.First(), at: map[string]schema.Span{}, value: v}
	var versions []schema.Version
	version := func(v *schema.Value) {
		var parsed schema.Version
		if text := r.Text(v); v.Kind == schema.String {
			if err := parsed.UnmarshalText([]byte(text)); err != nil {
				r.Errorf(v.Span, "%v", err)
			}
			versions = append(versions, parsed)
		}
	}
	r.Object(v, map[string]func(*schema.Value){
		"name":   func(v *schema.Value) { t.Name = r.Text(v) },
		"stream": func(v *schema.Value) { t.Stream, t.at["stream"] = r.Text(v), v.Span },
		"lws": func(v *schema.Value) {
			if t.at["lws"] = v.Span; v.Kind == schema.ArrayKind {
				r.List(v, version)
			} else {
				version(v)
			}
		},
		"metadata": func(v *schema.Value) {
			r.texts(v, func(name string, v *schema.Value) { t.Metadata = append(t.Metadata, Item{name, v.Text(), v.Span}) })
		},
		"fault": func(v *schema.Value) {
			name := r.Text(v)
			t.at["fault"] = v.Span
			if t.Fault = faulttest.Lookup(name); t.Fault == nil && v.Kind == schema.String {
				var names []string
				for _, f := range faulttest.All() {
					names = append(names, f.Name)
				}
				r.Errorf(v.Span, "unknown fault %s (\"sspolicy fault list\" lists them)%s", schema.QuoteName(name), didYouMean(name, names))
			}
		},
		"params": func(v *schema.Value) {
			t.Args, t.at["params"] = faulttest.Args{}, v.Span
			r.texts(v, func(name string, v *schema.Value) { t.Args[name] = v.Text() })
		},
		"expect": func(v *schema.Value) {
			t.expect = v
			keys := map[string]func(*schema.Value){}
			for _, f := range fields {
				keys[f.name] = func(v *schema.Value) { f.kind.check(r, v) }
			}
			r.Object(v, keys)
		},
	})
	if v.Kind == schema.ObjectKind && t.Stream == "" {
		r.Errorf(t.At, "missing stream: the name of a streamtype")
	}
	if t.Fault != nil {
		if err := t.Fault.Check(t.Args); err != nil {
			at, ok := t.at["params"]
			if !ok {
				at = t.at["fault"]
			}
			r.Errorf(at, "%v", err)
		}
	} else if at, ok := t.at["params"]; ok && t.at["fault"] == (schema.Span{}) {
		r.Errorf(at, "params without a fault")
	}
	if t.at["fault"] == (schema.Span{}) && t.expectation("states") != nil {
		r.Errorf(t.expectation("states").Span, "states without a fault: states are those under a fault")
	}
	if versions == nil {
		t.Name = t.title()
		return []*Test{&t}
	}
	var all []*Test
	for _, v := range versions {
		one := t
		one.LWS = &v
		one.Name = one.title() + ", lws " + v.String()
		all = append(all, &one)
	}
	return all
}

// title returns the name of a test, or one derived from its settings.
func (t *Test) title() string {
	if t.Name != "" {
		return t.Name
	}
	if t.Fault != nil {
		return t.Stream + ", " + t.Fault.Name
	}
	return t.Stream
}

// expectation returns the expected value of a field, or nil.
func (t *Test) expectation(name string) *schema.Value {
	if t.expect == nil {
		return nil
	}
	for _, m := range t.expect.Members() {
		if m.Key == name {
			return &m.Value
		}
	}
	return nil
}

// texts reads an object of strings.
func (r *reader) texts(v *schema.Value, read func(string, *schema.Value)) {
	if !r.Is(v, schema.ObjectKind) {
		return
	}
	for _, m := range v.Members() {
		if r.Is(&m.Value, schema.String) {
			read(m.Key, &m.Value)
		}
	}
}

func didYouMean(name string, names []string) string {
	if better := schema.Nearest(name, names); better != "" {
		return ": did you mean " + better + "?"
	}
	return ""
}
