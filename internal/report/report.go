// Package report writes diagnostics for people and for programs.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/secure-streams/sspolicy/schema"
)

// A Format is a way to write diagnostics.
type Format string

// The formats.
const (
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// Write writes diagnostics in a format.
func Write(w io.Writer, f Format, ds []schema.Diagnostic) error {
	if f == FormatJSON {
		return writeJSON(w, ds)
	}
	return writeText(w, ds)
}

// writeText writes each diagnostic as file:line:col: severity: message [rule],
// with the line of the source and a mark under what it is about.
func writeText(w io.Writer, ds []schema.Diagnostic) error {
	var b strings.Builder
	for _, d := range ds {
		fmt.Fprintf(&b, "%s: %s: %s [%s]\n", d.Span, d.Severity, d.Message, d.Rule)
		excerpt(&b, d.Span)
		for _, r := range d.Related {
			fmt.Fprintf(&b, "  %s: note: %s\n", r.Span, r.Message)
		}
		for _, f := range d.Fixes {
			fmt.Fprintf(&b, "  fix: %s\n", f.Message)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// margin is how many characters of a long line are shown on either side of
// where a span starts. Policies are often one line of thousands.
const margin = 60

// excerpt writes the line that a span starts on, and marks the span in it.
func excerpt(b *strings.Builder, s schema.Span) {
	text, start := s.Source.Line(s.Start)
	from := min(s.Start-start, len(text))
	to := max(from, min(s.End-start, len(text)))
	before, marked, after := []rune(printable(text[:from])), []rune(printable(text[from:to])), []rune(printable(text[to:]))
	lead, trail := "", ""
	if len(before) > margin {
		lead, before = "…", before[len(before)-margin:]
	}
	if len(marked) > margin {
		trail, marked, after = "…", marked[:margin], nil
	} else if room := margin - len(marked); len(after) > room {
		trail, after = "…", after[:room]
	}
	number := fmt.Sprintf("%5d | ", s.Position().Line)
	fmt.Fprintf(b, "%s%s%s%s%s%s\n", number, lead, string(before), string(marked), string(after), trail)
	indent := strings.Repeat(" ", runewidth.StringWidth(lead+string(before)))
	fmt.Fprintf(b, "%s| %s^%s\n", strings.Repeat(" ", len(number)-2), indent,
		strings.Repeat("~", max(0, runewidth.StringWidth(string(marked))-1)))
}

// printable replaces what would move the cursor by spaces.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// The JSON form. Its version rises when a field changes its meaning or goes;
// new fields may come without that.
const jsonVersion = 1

type jsonReport struct {
	Version     int              `json:"version"`
	Diagnostics []jsonDiagnostic `json:"diagnostics"`
}

type jsonDiagnostic struct {
	jsonSpan
	Severity schema.Severity `json:"severity"`
	Rule     string          `json:"rule"`
	Message  string          `json:"message"`
	Related  []jsonRelated   `json:"related,omitempty"`
	Fixes    []jsonFix       `json:"fixes,omitempty"`
}

// jsonSpan has lines and columns from 1, columns in characters, and offsets
// and lengths in bytes.
type jsonSpan struct {
	File      string `json:"file"`
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	EndLine   int    `json:"endLine"`
	EndColumn int    `json:"endColumn"`
	Offset    int    `json:"offset"`
	Length    int    `json:"length"`
}

type jsonRelated struct {
	jsonSpan
	Message string `json:"message"`
}

type jsonFix struct {
	Message string     `json:"message"`
	Edits   []jsonEdit `json:"edits"`
}

type jsonEdit struct {
	jsonSpan
	NewText string `json:"newText"`
}

func newJSONSpan(s schema.Span) jsonSpan {
	start, end := s.Position(), s.Source.Position(s.End)
	return jsonSpan{s.Source.Name, start.Line, start.Column, end.Line, end.Column, s.Start, s.End - s.Start}
}

func writeJSON(w io.Writer, ds []schema.Diagnostic) error {
	out := jsonReport{jsonVersion, make([]jsonDiagnostic, 0, len(ds))}
	for _, d := range ds {
		j := jsonDiagnostic{jsonSpan: newJSONSpan(d.Span), Severity: d.Severity, Rule: d.Rule, Message: d.Message}
		for _, r := range d.Related {
			j.Related = append(j.Related, jsonRelated{newJSONSpan(r.Span), r.Message})
		}
		for _, f := range d.Fixes {
			fix := jsonFix{Message: f.Message}
			for _, e := range f.Edits {
				fix.Edits = append(fix.Edits, jsonEdit{newJSONSpan(e.Span), e.NewText})
			}
			j.Fixes = append(j.Fixes, fix)
		}
		out.Diagnostics = append(out.Diagnostics, j)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(out)
}
