// Package config reads the configuration of the lint, .sspolicy.json.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "embed"

	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// Name is what a configuration is called.
const Name = ".sspolicy.json"

// Rule is the rule that the diagnostics of this package name.
const Rule = "config"

// JSONSchema is the JSON Schema (draft 2020-12) of a configuration.
//
//go:embed config.schema.json
var JSONSchema string

// A Config is what a project has decided about the lint.
type Config struct {
	LWS       []schema.Version // nil if it does not say
	FailLevel string           // "error", "warning", "info" or "none"; empty if it does not say
	CertWarn  time.Duration    // less than 0 if it does not say

	dir      string // that paths are relative to
	severity map[string]schema.Severity
	off      map[string]bool
	ignore   []ignore
}

// An ignore leaves out what a rule finds in some files.
type ignore struct {
	rule  string
	paths []string // nil for all
}

// Find returns the configuration for a folder: the file of this Name in it, or
// in the nearest folder above it up to the one that is a repository's. It
// returns "" if there is none.
func Find(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		file := filepath.Join(dir, Name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		_, err := os.Stat(filepath.Join(dir, ".git"))
		if parent := filepath.Dir(dir); err == nil || parent == dir {
			return "", nil
		} else {
			dir = parent
		}
	}
}

// Parse reads a configuration. It is JSON, with comments as in a policy. What
// is wrong with it is returned as diagnostics.
func Parse(file string, text []byte) (*Config, []schema.Diagnostic) {
	d := schema.Parse(file, text)
	r := &reader{c: &Config{CertWarn: -1, dir: filepath.Dir(file), severity: map[string]schema.Severity{}, off: map[string]bool{}}, found: d.Syntax}
	if !schema.HasErrors(d.Syntax) {
		r.object(&d.Root, map[string]func(*schema.Value){
			"$schema":    func(v *schema.Value) { r.text(v) },
			"lws":        r.versions,
			"fail-level": func(v *schema.Value) { r.c.FailLevel = r.oneOf(v, "error", "warning", "info", "none") },
			"cert-warn":  r.certWarn,
			"severity":   r.severities,
			"ignore":     r.ignores,
		})
	}
	return r.c, schema.SortDiagnostics(r.found)
}

type reader struct {
	c     *Config
	found []schema.Diagnostic
}

func (r *reader) errorf(at schema.Span, format string, args ...any) {
	r.found = append(r.found, schema.Diagnostic{Rule: Rule, Severity: schema.Error, Span: at, Message: fmt.Sprintf(format, args...)})
}

// is reports whether a value is of a kind, and that it is not.
func (r *reader) is(v *schema.Value, k schema.Kind) bool {
	if v.Kind != k {
		r.errorf(v.Span, "this is %s, not %s", v.Kind, k)
	}
	return v.Kind == k
}

// object reads the members of an object, each of which may stand once.
func (r *reader) object(v *schema.Value, keys map[string]func(*schema.Value)) {
	if !r.is(v, schema.ObjectKind) {
		return
	}
	seen := map[string]bool{}
	for _, m := range v.Members() {
		read, ok := keys[m.Key]
		switch {
		case !ok:
			var names []string
			for name := range keys {
				names = append(names, name)
			}
			slices.Sort(names)
			r.errorf(m.Name.Span, "%s is no setting: there is %s", schema.QuoteName(m.Key), strings.Join(names, ", "))
		case seen[m.Key]:
			r.errorf(m.Name.Span, "%s stands here twice", schema.QuoteName(m.Key))
		default:
			seen[m.Key] = true
			read(&m.Value)
		}
	}
}

func (r *reader) text(v *schema.Value) string {
	if !r.is(v, schema.String) {
		return ""
	}
	return v.Text()
}

func (r *reader) oneOf(v *schema.Value, words ...string) string {
	text := r.text(v)
	if v.Kind == schema.String && !slices.Contains(words, text) {
		r.errorf(v.Span, "%s is not one of %s", schema.QuoteName(text), strings.Join(words, ", "))
		return ""
	}
	return text
}

// list reads the strings of an array.
func (r *reader) list(v *schema.Value, read func(*schema.Value)) {
	if r.is(v, schema.ArrayKind) {
		for _, e := range v.Elems() {
			read(&e.Value)
		}
	}
}

func (r *reader) versions(v *schema.Value) {
	r.list(v, func(e *schema.Value) {
		var version schema.Version
		if text := r.text(e); e.Kind == schema.String {
			if err := version.UnmarshalText([]byte(text)); err != nil {
				r.errorf(e.Span, "%v", err)
			} else {
				r.c.LWS = append(r.c.LWS, version)
			}
		}
	})
}

func (r *reader) certWarn(v *schema.Value) {
	var days int
	if !r.is(v, schema.Number) {
		return
	}
	if _, err := fmt.Sscanf(v.Raw+"\n", "%d\n", &days); err != nil || days < 0 || days > 36500 {
		r.errorf(v.Span, "cert-warn is a number of days, 0 to 36500")
		return
	}
	r.c.CertWarn = time.Duration(days) * 24 * time.Hour
}

// rule reads the name of a rule that may be changed.
func (r *reader) rule(name string, at schema.Span) bool {
	rule := rules.Lookup(name)
	switch {
	case rule == nil:
		message := fmt.Sprintf("there is no rule %s", schema.QuoteName(name))
		var names []string
		for _, r := range rules.All() {
			names = append(names, r.Name)
		}
		if better := schema.Nearest(name, names); better != "" {
			message += ": did you mean " + better + "?"
		}
		r.errorf(at, "%s", message)
	case rule.Firm:
		r.errorf(at, "the rule %s can't be suppressed or changed", name)
	default:
		return true
	}
	return false
}

func (r *reader) severities(v *schema.Value) {
	if !r.is(v, schema.ObjectKind) {
		return
	}
	for _, m := range v.Members() {
		word := r.oneOf(&m.Value, "error", "warning", "info", "off")
		if !r.rule(m.Key, m.Name.Span) || word == "" {
			continue
		}
		if word == "off" {
			r.c.off[m.Key] = true
			continue
		}
		var s schema.Severity
		_ = s.UnmarshalText([]byte(word)) // one of the words above
		r.c.severity[m.Key] = s
	}
}

func (r *reader) ignores(v *schema.Value) {
	r.list(v, func(e *schema.Value) {
		var i ignore
		reason := ""
		r.object(e, map[string]func(*schema.Value){
			"rule": func(v *schema.Value) {
				if name := r.text(v); v.Kind == schema.String && r.rule(name, v.Span) {
					i.rule = name
				}
			},
			"paths": func(v *schema.Value) {
				r.list(v, func(e *schema.Value) {
					pattern := r.text(e)
					if _, err := path.Match(pattern, ""); err != nil {
						r.errorf(e.Span, "%s is no pattern: %v", schema.QuoteName(pattern), err)
					}
					i.paths = append(i.paths, pattern)
				})
			},
			"reason": func(v *schema.Value) { reason = strings.TrimSpace(r.text(v)) },
		})
		if e.Kind == schema.ObjectKind && reason == "" {
			r.errorf(schema.Span{Source: e.Span.Source, Start: e.Span.Start, End: e.Span.Start + 1}, "a reason is missing: it is for whoever reads this next")
		}
		if i.rule != "" {
			r.c.ignore = append(r.c.ignore, i)
		}
	})
}

// Apply changes the severities of diagnostics and leaves out what is ignored.
func (c *Config) Apply(found []schema.Diagnostic) []schema.Diagnostic {
	kept := slices.DeleteFunc(found, func(d schema.Diagnostic) bool {
		return c.off[d.Rule] || slices.ContainsFunc(c.ignore, func(i ignore) bool {
			return i.rule == d.Rule && c.matches(i.paths, d.Span.Source.Name)
		})
	})
	for i, d := range kept {
		if s, ok := c.severity[d.Rule]; ok {
			kept[i].Severity = s
		}
	}
	return kept
}

// matches reports whether a file is one of those that patterns are for. A
// pattern is matched (path.Match) with the file's path as seen from the
// configuration, and, if there is no slash in it, with its name.
func (c *Config) matches(patterns []string, file string) bool {
	if patterns == nil {
		return true
	}
	rel := filepath.ToSlash(file)
	if abs, err := filepath.Abs(file); err == nil {
		if r, err := filepath.Rel(c.dir, abs); err == nil {
			rel = filepath.ToSlash(r)
		}
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		whole, _ := path.Match(p, rel)
		base, _ := path.Match(p, path.Base(rel))
		return whole || base && !strings.Contains(p, "/")
	})
}
