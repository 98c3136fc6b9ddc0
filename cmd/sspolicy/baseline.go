package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// baselineVersion is the version of the form of baseline files.
const baselineVersion = 1

// A baseline is a list of known findings, which are not reported again. A nil
// baseline is empty.
type baseline struct {
	Version  int            `json:"version"`
	Findings []knownFinding `json:"findings"`

	dir   string // files are relative to it
	known map[knownFinding]bool
	seen  map[knownFinding]bool
}

// A knownFinding identifies a finding by a hash of the text that it is about and of
// the names around it, so that it is stable when lines move.
type knownFinding struct {
	File        string `json:"file"` // from the folder of the baseline, with slashes
	Rule        string `json:"rule"`
	Fingerprint string `json:"fingerprint"`
}

// readBaseline reads a baseline file.
func (p *program) readBaseline(file string) (*baseline, error) {
	text, err := p.read(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	b := newBaseline(file)
	if err := json.Unmarshal(text, b); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			err = fmt.Errorf("unexpected %s at byte %d", e.Value, e.Offset)
		}
		return nil, usage("%s is not a baseline: %w; --write-baseline writes one", displayName(file), err)
	}
	if b.Version != baselineVersion {
		return nil, usage("%s: baseline version %d is not supported: want %d", displayName(file), b.Version, baselineVersion)
	}
	for _, k := range b.Findings {
		b.known[k] = true
	}
	return b, nil
}

func newBaseline(file string) *baseline {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		dir = filepath.Dir(file)
	}
	return &baseline{
		Version: baselineVersion, Findings: []knownFinding{},
		dir: dir, known: map[knownFinding]bool{}, seen: map[knownFinding]bool{},
	}
}

// name returns the name of a source in the baseline.
func (b *baseline) name(source string) string {
	if source == displayName("-") {
		return source
	}
	if abs, err := filepath.Abs(source); err == nil {
		if rel, err := filepath.Rel(b.dir, abs); err == nil {
			source = rel
		}
	}
	return filepath.ToSlash(source)
}

// identify returns the findings of one document in the form of a baseline.
func (b *baseline) identify(found []schema.Diagnostic) []knownFinding {
	list := make([]knownFinding, len(found))
	for i, sum := range report.Fingerprints(found) {
		list[i] = knownFinding{b.name(found[i].Span.Source.Name), found[i].Rule, sum}
	}
	return list
}

// apply removes the known findings from those of one document. A finding that
// cannot be suppressed is never known.
func (b *baseline) apply(found []schema.Diagnostic) []schema.Diagnostic {
	if b == nil {
		return found
	}
	remaining := found[:0]
	for i, k := range b.identify(found) {
		if b.known[k] && !firm(k.Rule) {
			b.seen[k] = true
			continue
		}
		remaining = append(remaining, found[i])
	}
	return remaining
}

func firm(rule string) bool {
	r := rules.Lookup(rule)
	return r != nil && r.Firm
}

// add adds the findings of one document, except those that cannot be suppressed.
func (b *baseline) add(found []schema.Diagnostic) {
	for _, k := range b.identify(found) {
		if !firm(k.Rule) {
			b.Findings = append(b.Findings, k)
		}
	}
}

// stale returns the number of known findings that the checked policies no longer
// have.
func (b *baseline) stale(checked []target) (n int) {
	if b == nil {
		return 0
	}
	files := map[string]bool{}
	for _, t := range checked {
		files[b.name(displayName(t.file))] = true
	}
	for _, k := range b.Findings {
		if files[k.File] && !b.seen[k] {
			n++
		}
	}
	return n
}

// write writes the baseline as JSON, one finding per line.
func (b *baseline) write(w io.Writer) error {
	text := fmt.Appendf(nil, "{\n  \"version\": %d,\n  \"findings\": [", b.Version)
	for i, k := range b.Findings {
		line, err := json.Marshal(k)
		if err != nil {
			return err
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(text, "\n    "...), line...)
	}
	_, err := fmt.Fprintf(w, "%s\n  ]\n}\n", text)
	return err
}
