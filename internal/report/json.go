package report

import (
	"encoding/json"
	"io"

	"github.com/secure-streams/sspolicy/schema"
)

// jsonVersion is the version of the JSON formats. It rises when a field changes its
// meaning or is removed, not when one is added.
const jsonVersion = 1

type jsonReport struct {
	Version     int              `json:"version"`
	Files       []string         `json:"files"`
	Diagnostics []jsonDiagnostic `json:"diagnostics"`
}

// A jsonLine is a line of FormatJSONL.
type jsonLine struct {
	Version int `json:"version"`
	jsonDiagnostic
}

type jsonDiagnostic struct {
	jsonSpan
	Severity schema.Severity `json:"severity"`
	Rule     string          `json:"rule"`
	Message  string          `json:"message"`
	Related  []jsonRelated   `json:"related"`
	Fixes    []jsonFix       `json:"fixes"`
}

// A jsonSpan has lines and columns from 1, columns in characters, and offset and length
// in bytes.
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
	Safe    bool       `json:"safe"`
	Edits   []jsonEdit `json:"edits"`
}

type jsonEdit struct {
	jsonSpan
	NewText string `json:"newText"`
}

func newJSONSpan(s schema.Span) jsonSpan {
	s = clamp(s)
	start, end := s.Position(), s.Source.Position(s.End)
	return jsonSpan{s.Source.Name, start.Line, start.Column, end.Line, end.Column, s.Start, s.End - s.Start}
}

func newJSONDiagnostic(d schema.Diagnostic) jsonDiagnostic {
	j := jsonDiagnostic{
		jsonSpan: newJSONSpan(d.Span), Severity: d.Severity, Rule: d.Rule, Message: d.Message,
		Related: make([]jsonRelated, 0, len(d.Related)), Fixes: make([]jsonFix, 0, len(d.Fixes)),
	}
	for _, r := range d.Related {
		j.Related = append(j.Related, jsonRelated{newJSONSpan(r.Span), r.Message})
	}
	for _, f := range d.Fixes {
		fix := jsonFix{f.Message, f.Safe, make([]jsonEdit, 0, len(f.Edits))}
		for _, e := range f.Edits {
			fix.Edits = append(fix.Edits, jsonEdit{newJSONSpan(e.Span), e.NewText})
		}
		j.Fixes = append(j.Fixes, fix)
	}
	return j
}

func newJSONDiagnostics(ds []schema.Diagnostic) []jsonDiagnostic {
	js := make([]jsonDiagnostic, 0, len(ds))
	for _, d := range ds {
		js = append(js, newJSONDiagnostic(d))
	}
	return js
}

// writeJSON writes the report as one object.
func writeJSON(w io.Writer, r *Report) error {
	return Encode(w, jsonReport{jsonVersion, append([]string{}, r.files()...), newJSONDiagnostics(r.Diagnostics)})
}

// writeJSONL writes each diagnostic as an object on one line.
func writeJSONL(w io.Writer, r *Report) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, d := range r.Diagnostics {
		if err := e.Encode(jsonLine{jsonVersion, newJSONDiagnostic(d)}); err != nil {
			return err
		}
	}
	return nil
}

// Encode writes a value as indented JSON.
func Encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
