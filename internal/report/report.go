// Package report writes diagnostics in several formats, one per file. docs/formats.md
// describes them.
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"unicode"

	"github.com/secure-streams/sspolicy/schema"
)

// A Format is the format of a report.
type Format string

// The formats.
const (
	FormatText     Format = "text"
	FormatJSON     Format = "json"
	FormatJSONL    Format = "jsonl"
	FormatSARIF    Format = "sarif"
	FormatGitHub   Format = "github"
	FormatGitLab   Format = "gitlab"
	FormatJUnit    Format = "junit"
	FormatTemplate Format = "template"
)

// Formats returns all formats.
func Formats() []Format {
	return []Format{FormatText, FormatJSON, FormatJSONL, FormatSARIF, FormatGitHub, FormatGitLab, FormatJUnit, FormatTemplate}
}

// A Report is the result of checking files.
type Report struct {
	Files       []string // the names of all files, as in their Sources
	Diagnostics []schema.Diagnostic

	Rules   []Rule // all rules, for formats that describe them
	Version string // of sspolicy
	Dir     string // the working directory: formats for programs write absolute names below it relative to it

	// Fails reports whether a finding is a failure, for formats that distinguish
	// passed and failed. It may be nil: nothing fails.
	Fails func(schema.Diagnostic) bool
}

// A Rule describes a rule.
type Rule struct {
	Name     string
	Severity schema.Severity // of most of its diagnostics
	Summary  string          // one line
	Why      string          // in Markdown
	LWS      string          // what lws does, in Markdown
	Own      bool            // a project's own, which has no page
}

// A Level is the name of the lowest severity of failures, or LevelNone. With the zero
// Level nothing is a failure.
type Level string

// LevelNone is the level at which nothing is a failure.
const LevelNone Level = "none"

// Fails reports whether a finding is a failure.
func (l Level) Fails(s schema.Severity) bool {
	var least schema.Severity
	return least.UnmarshalText([]byte(l)) == nil && s >= least
}

// An Output is a format with its options.
type Output struct {
	Format   Format
	Color    bool               // for text
	Template *template.Template // for FormatTemplate, from ParseTemplate
}

// Write writes a report.
func (o Output) Write(w io.Writer, r *Report) error {
	switch o.Format {
	case FormatText:
		return writeText(w, r, o.Color)
	case FormatJSON:
		return writeJSON(w, r)
	case FormatJSONL:
		return writeJSONL(w, r)
	case FormatSARIF:
		return writeSARIF(w, r)
	case FormatGitHub:
		return writeGitHub(w, r)
	case FormatGitLab:
		return writeGitLab(w, r)
	case FormatJUnit:
		return writeJUnit(w, r)
	case FormatTemplate:
		return writeTemplate(w, r, o.Template)
	}
	return fmt.Errorf("unknown format %q", o.Format)
}

// Write writes diagnostics in a format without options.
func Write(w io.Writer, f Format, ds []schema.Diagnostic) error {
	return Output{Format: f}.Write(w, &Report{Diagnostics: ds})
}

// files returns the names of all files that were checked or have diagnostics.
func (r *Report) files() []string {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, name := range r.Files {
		add(name)
	}
	for _, d := range r.Diagnostics {
		add(d.Span.Source.Name)
	}
	return names
}

// Summary counts the diagnostics, as in "3 errors, 1 warning in 2 of 5 files". It
// returns "" if there are none.
func (r *Report) Summary() string {
	if len(r.Diagnostics) == 0 {
		return ""
	}
	counts := map[schema.Severity]int{}
	files := map[string]bool{}
	for _, d := range r.Diagnostics {
		counts[d.Severity]++
		files[d.Span.Source.Name] = true
	}
	var parts []string
	for _, s := range []schema.Severity{schema.Error, schema.Warning, schema.Info} {
		switch n := counts[s]; {
		case n == 1:
			parts = append(parts, "1 "+s.String())
		case n > 1 && s == schema.Info:
			parts = append(parts, fmt.Sprintf("%d infos", n))
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n, s))
		}
	}
	summary := strings.Join(parts, ", ")
	if n := len(r.files()); n > 1 {
		summary += fmt.Sprintf(" in %d of %d files", len(files), n)
	}
	return summary + r.fixable()
}

// Fixable reports whether some of the findings have fixes.
func (r *Report) Fixable() bool { return r.fixable() != "" }

// fixable describes how many findings have fixes, for the summary.
func (r *Report) fixable() string {
	safe, unsafe, least := 0, 0, ""
	for _, d := range r.Diagnostics {
		if d.Rule == schema.RuleSyntax && len(d.Fixes) > 0 {
			least = "at least " // other findings get their fixes after it
		}
		switch {
		case slices.ContainsFunc(d.Fixes, func(f schema.Fix) bool { return f.Safe }):
			safe++
		case len(d.Fixes) > 0:
			unsafe++
		}
	}
	switch {
	case safe > 0 && unsafe > 0:
		return fmt.Sprintf("; %s%d can be fixed with --fix, %d more with --unsafe-fixes", least, safe, unsafe)
	case safe > 0:
		return fmt.Sprintf("; %s%d can be fixed with --fix", least, safe)
	case unsafe > 0:
		return fmt.Sprintf("; %s%d can be fixed with --unsafe-fixes", least, unsafe)
	}
	return ""
}

// clamp limits a span to its source.
func clamp(s schema.Span) schema.Span {
	s.Start = max(0, min(s.Start, len(s.Source.Text)))
	s.End = max(s.Start, min(s.End, len(s.Source.Text)))
	return s
}

// notes returns the related positions and fixes of a diagnostic as lines of text.
func notes(d schema.Diagnostic) []string {
	var lines []string
	for _, r := range d.Related {
		lines = append(lines, fmt.Sprintf("%s: note: %s", r.Span, r.Message))
	}
	for _, f := range d.Fixes {
		lines = append(lines, "fix: "+f.Message)
	}
	return lines
}

// clean removes control characters except white space, and other characters that XML
// 1.0 cannot represent.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, s)
}
