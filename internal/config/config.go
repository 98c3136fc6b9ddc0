// Package config reads configurations of sspolicy, .sspolicy.json.
package config

import (
	"encoding/json"
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

	"github.com/secure-streams/sspolicy/internal/ignore"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// Name is the file name of a configuration.
const Name = ".sspolicy.json"

// TestSuffix ends the names of test files.
const TestSuffix = ".test.json"

// Rule is the rule that the diagnostics of this package name.
const Rule = "config"

// JSONSchema is the JSON Schema (draft 2020-12) of a configuration.
//
//go:embed config.schema.json
var JSONSchema string

// A Config holds the settings of a project.
type Config struct {
	File      string           // its name, as given to Parse
	LWS       []schema.Version // nil if not set
	With      []string         // the groups and rules to check in addition
	FailLevel string           // "error", "warning", "info" or "none"; empty if not set
	CertWarn  time.Duration    // negative if not set
	Rules     []*OwnRule       // the project's own rules

	dir        string // absolute; paths are relative to it
	exclude    ignore.List
	fragments  []fragments
	severities []severity
	ignore     []exception
}

// A severity replaces the severity of the rules that a pattern matches.
type severity struct {
	rules string
	off   bool
	level schema.Severity
}

// An exception drops the findings of some rules in some files.
type exception struct {
	rules string
	paths *ignore.List // nil for all files
}

// A fragments setting names the fragments of a policy.
type fragments struct {
	paths    ignore.List
	patterns []pattern   // those of paths that name fragments
	base     string      // the file of the policy; "" for any policy
	at       schema.Span // of the base
}

// Find returns the file of this Name in dir or in the nearest folder above it,
// up to the root of the repository. It returns "" if there is none.
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

// Parse reads a configuration: JSON with comments and trailing commas. Mistakes
// are returned as diagnostics.
func Parse(file string, text []byte) (*Config, []schema.Diagnostic) {
	r := &reader{Reader: Reader{Rule: Rule}, c: &Config{File: file, CertWarn: -1, dir: folder(file)}}
	d, plain, wrong := Document(file, text)
	r.plain = plain
	if wrong != nil {
		r.Found = append(r.Found, *wrong)
		return r.c, r.Found
	}
	for _, m := range d.Root.Members() {
		if m.Key == "rules" { // first, since other settings name rules
			r.rules(&m.Value)
			break
		}
	}
	r.Object(&d.Root, map[string]func(*schema.Value){
		"$schema":    func(v *schema.Value) { r.Text(v) },
		"rules":      func(*schema.Value) {},
		"lws":        r.versions,
		"fail-level": func(v *schema.Value) { r.c.FailLevel = r.OneOf(v, "error", "warning", "info", "none") },
		"cert-warn":  r.certWarn,
		"exclude":    func(v *schema.Value) { r.patterns(v, &r.c.exclude) },
		"fragments":  func(v *schema.Value) { r.fragments(v, filepath.Dir(file)) },
		"with":       r.groups,
		"severity":   r.severities,
		"ignore":     r.ignores,
	})
	return r.c, schema.SortDiagnostics(r.Found)
}

// Document reads JSON with comments and trailing commas. It also returns the text
// as plain JSON of the same length, or the error in it.
func Document(file string, text []byte) (d *schema.Document, plain []byte, wrong *schema.Diagnostic) {
	plain = Standardize(text)
	d = schema.Parse(file, plain)
	d.Source.Text = string(text) // the same length and lines
	// The reader of policies speaks of lws in its messages.
	if err := json.Unmarshal(plain, new(any)); err != nil {
		at := schema.Span{Source: d.Source}
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			at.Start = max(0, int(e.Offset)-1)
		}
		at.End = min(at.Start+1, len(text))
		return d, plain, &schema.Diagnostic{Rule: Rule, Severity: schema.Error, Span: at, Message: fmt.Sprintf("not JSON: %v", err)}
	}
	return d, plain, nil
}

// folder returns the absolute folder of a file.
func folder(file string) string {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return filepath.Dir(file)
	}
	return dir
}

type reader struct {
	Reader
	c     *Config
	plain []byte // the text as JSON
}

func (r *reader) versions(v *schema.Value) {
	r.List(v, func(e *schema.Value) {
		var version schema.Version
		if text := r.Text(e); e.Kind == schema.String {
			if err := version.UnmarshalText([]byte(text)); err != nil {
				r.Errorf(e.Span, "%v", err)
			} else {
				r.c.LWS = append(r.c.LWS, version)
			}
		}
	})
}

func (r *reader) certWarn(v *schema.Value) {
	var days int
	if !r.Is(v, schema.Number) {
		return
	}
	if err := json.Unmarshal([]byte(v.Raw()), &days); err != nil || days < 0 || days > 36500 {
		r.Errorf(v.Span, "cert-warn must be a number of days, 0 to 36500")
		return
	}
	r.c.CertWarn = time.Duration(days) * 24 * time.Hour
}

// patterns reads patterns as in .gitignore files. It returns those that do not negate.
func (r *reader) patterns(v *schema.Value, l *ignore.List) (positive []pattern) {
	r.List(v, func(e *schema.Value) {
		if text := strings.TrimPrefix(r.Text(e), "./"); e.Kind == schema.String {
			if err := l.Add(text); err != nil {
				r.Errorf(e.Span, "%v", err)
			} else if !strings.HasPrefix(text, "!") {
				positive = append(positive, pattern{text, e.Span})
			}
		}
	})
	return positive
}

// groups reads names of groups of opt-in rules.
func (r *reader) groups(v *schema.Value) {
	r.List(v, func(e *schema.Value) {
		name := r.Text(e)
		switch {
		case e.Kind != schema.String:
		case !slices.Contains(rules.Groups(), name):
			r.Errorf(e.Span, "unknown group %s: want one of %s", schema.QuoteName(name), strings.Join(rules.Groups(), ", "))
		default:
			r.c.With = append(r.c.With, name)
		}
	})
}

// selects reports whether a name or pattern selects rules whose findings may be
// changed. If not, it adds an error.
func (r *reader) selects(pattern string, at schema.Span) bool {
	var names []string
	matched := 0
	for _, rule := range r.c.AllRules() {
		names = append(names, rule.Name)
		if matches(pattern, rule) {
			if matched++; !rule.Firm {
				return true
			}
		}
	}
	switch better := schema.Nearest(pattern, names); {
	case matched > 0:
		r.Errorf(at, "rule %s cannot be suppressed or changed", pattern)
	case strings.Contains(pattern, "*"):
		r.Errorf(at, "no rule matches %s", schema.QuoteName(pattern))
	case better != "":
		r.Errorf(at, "unknown rule %s: did you mean %s?", schema.QuoteName(pattern), better)
	default:
		r.Errorf(at, "unknown rule %s", schema.QuoteName(pattern))
	}
	return false
}

// matches reports whether a pattern matches a rule: the pattern is a group, a name,
// or a name with wildcards.
//
// A wildcard also matches a slash, as in corp/own-roots.
func matches(pattern string, rule *lint.Rule) bool {
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(rule.Name))
	return ok && err == nil || pattern == rule.Group && pattern != ""
}

// flat replaces what path.Match treats as the end of a name.
var flat = strings.NewReplacer("/", ":")

func (r *reader) severities(v *schema.Value) {
	if !r.Is(v, schema.ObjectKind) {
		return
	}
	for _, m := range v.Members() {
		word := r.OneOf(&m.Value, "error", "warning", "info", "off")
		if !r.selects(m.Key, m.Name.Span) || word == "" {
			continue
		}
		s := severity{rules: m.Key, off: word == "off"}
		if !s.off {
			_ = s.level.UnmarshalText([]byte(word)) // one of the words above
		}
		r.c.severities = append(r.c.severities, s)
		if !s.off && (slices.Contains(rules.Groups(), m.Key) || r.c.Lookup(m.Key) != nil) {
			r.c.With = append(r.c.With, m.Key) // check a rule that has a severity
		}
	}
	// The most specific pattern decides, so it comes last.
	slices.SortStableFunc(r.c.severities, func(a, b severity) int { return r.c.specificity(a.rules) - r.c.specificity(b.rules) })
}

// specificity orders patterns by the number of their characters that are not
// wildcards. The name of a rule is the most specific.
func (c *Config) specificity(pattern string) int {
	if c.Lookup(pattern) != nil {
		return 1 << 16
	}
	return len(pattern) - strings.Count(pattern, "*")
}

func (r *reader) ignores(v *schema.Value) {
	r.List(v, func(e *schema.Value) {
		var i exception
		reason := ""
		r.Object(e, map[string]func(*schema.Value){
			"rule": func(v *schema.Value) {
				if name := r.Text(v); v.Kind == schema.String && r.selects(name, v.Span) {
					i.rules = name
				}
			},
			"paths": func(v *schema.Value) {
				i.paths = &ignore.List{}
				r.patterns(v, i.paths)
			},
			"reason": func(v *schema.Value) { reason = strings.TrimSpace(r.Text(v)) },
		})
		if e.Kind == schema.ObjectKind && reason == "" {
			r.Errorf(e.Span.First(), "missing reason: say why, for the next reader")
		}
		if i.rules != "" {
			r.c.ignore = append(r.c.ignore, i)
		}
	})
}

// fragments reads which files are fragments of which policy. Names of policies are
// relative to dir.
func (r *reader) fragments(v *schema.Value, dir string) {
	r.List(v, func(e *schema.Value) {
		f := fragments{at: e.Span.First()}
		found := len(r.Found)
		paths, base := false, false
		r.Object(e, map[string]func(*schema.Value){
			"paths": func(v *schema.Value) {
				paths = true
				f.patterns = r.patterns(v, &f.paths)
			},
			"base": func(v *schema.Value) {
				base, f.at = true, v.Span
				if f.base = filepath.FromSlash(r.Text(v)); f.base != "" && !filepath.IsAbs(f.base) {
					f.base = filepath.Join(dir, f.base)
				}
			},
		})
		switch {
		case len(r.Found) > found:
		case !paths:
			r.Errorf(f.at, "missing paths: the patterns of the files that are fragments")
		case !base:
			r.Errorf(f.at, "missing base: the policy that the fragments are for, from the folder of this file, or \"\" for any policy")
		default:
			r.c.fragments = append(r.c.fragments, f)
		}
	})
}

// Fragment reports whether a file is a fragment. If so, it returns the policy that
// it is for, which is "" for any policy, and the position of that setting. If
// several settings match, the last counts. A policy is never a fragment for itself, and a
// test file never a fragment.
func (c *Config) Fragment(file string) (base string, at schema.Span, ok bool) {
	if !mayBeFragment(file) {
		return "", schema.Span{}, false
	}
	for _, f := range slices.Backward(c.fragments) {
		if c.covers(&f.paths, file) && !sameFile(file, f.base) {
			return f.base, f.at, true
		}
	}
	return "", schema.Span{}, false
}

// FragmentFolders returns the folders with files that the configuration may treat
// as fragments of a policy.
func (c *Config) FragmentFolders(base string) (all []string) {
	for _, f := range c.fragments {
		if !sameFile(base, f.base) {
			continue
		}
		for _, folder := range f.paths.Folders() {
			all = append(all, filepath.Join(c.dir, filepath.FromSlash(folder)))
		}
	}
	return all
}

// sameFile reports whether two names refer to the same file, directly or by links.
func sameFile(a, b string) bool {
	x, err := filepath.Abs(a)
	y, err2 := filepath.Abs(b)
	if b == "" || err != nil || err2 != nil {
		return false
	}
	if x == y {
		return true
	}
	infoX, err := os.Stat(x)
	infoY, err2 := os.Stat(y)
	return err == nil && err2 == nil && os.SameFile(infoX, infoY)
}

// Apply changes the severities of diagnostics and drops those that the
// configuration turns off or ignores.
func (c *Config) Apply(found []schema.Diagnostic) []schema.Diagnostic {
	remaining := found[:0]
	for _, d := range found {
		if rule := c.Lookup(d.Rule); rule != nil && !rule.Firm {
			s, ok := c.severity(rule)
			if ok && s.off || c.ignored(rule, d) {
				continue
			}
			if ok {
				d.Severity = s.level
			}
		}
		remaining = append(remaining, d)
	}
	clear(found[len(remaining):])
	return remaining
}

// severity returns the setting for a rule, if there is one.
func (c *Config) severity(rule *lint.Rule) (severity, bool) {
	for _, s := range slices.Backward(c.severities) {
		if matches(s.rules, rule) {
			return s, true
		}
	}
	return severity{}, false
}

func (c *Config) ignored(rule *lint.Rule, d schema.Diagnostic) bool {
	return slices.ContainsFunc(c.ignore, func(i exception) bool {
		return matches(i.rules, rule) && (i.paths == nil || c.covers(i.paths, d.Span.Source.Name))
	})
}

// Excludes reports whether the configuration excludes a file from those found in
// folders.
func (c *Config) Excludes(file string) bool { return c.covers(&c.exclude, file) }

// covers reports whether patterns, which are relative to the folder of the
// configuration, match a file, by whichever name it is given.
func (c *Config) covers(l *ignore.List, file string) bool {
	abs, err := filepath.Abs(file)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(c.dir, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return l.Covers(filepath.Base(file)) // elsewhere: patterns for names in any folder
	}
	return l.Covers(filepath.ToSlash(rel))
}
