package schema

import (
	"cmp"
	"encoding"
	"fmt"
	"slices"
)

// A Diagnostic is a finding about a policy.
type Diagnostic struct {
	Rule     string // the name of the rule
	Severity Severity
	Span     Span // where; its Source is never nil
	Message  string
	Related  []Related // other positions, such as an earlier definition
	Fixes    []Fix     // alternatives, best first
}

// A Related is another position that a diagnostic refers to.
type Related struct {
	Span    Span
	Message string
}

// A Severity is the severity of a diagnostic.
type Severity uint8

// The severities, in ascending order.
const (
	Info    Severity = iota // worth knowing
	Warning                 // works, but probably not as intended
	Error                   // lws refuses or misreads the policy
)

var severityNames = [...]string{"info", "warning", "error"}

func (s Severity) String() string { return severityNames[s] }

// MarshalText returns the name of the severity.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses the name of a severity.
func (s *Severity) UnmarshalText(text []byte) error {
	i := slices.Index(severityNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown severity %q: use info, warning or error", text)
	}
	*s = Severity(i)
	return nil
}

var (
	_ encoding.TextMarshaler   = Severity(0)
	_ encoding.TextUnmarshaler = (*Severity)(nil)
)

// SortDiagnostics sorts ds by file, position and rule, and removes duplicates.
func SortDiagnostics(ds []Diagnostic) []Diagnostic {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.Span.Source.Name, b.Span.Source.Name),
			cmp.Compare(a.Span.Start, b.Span.Start),
			cmp.Compare(a.Span.End, b.Span.End),
			cmp.Compare(a.Rule, b.Rule),
			cmp.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(ds, func(a, b Diagnostic) bool {
		return a.Span == b.Span && a.Rule == b.Rule && a.Message == b.Message
	})
}

// Worst returns the highest severity among ds, and whether there is any.
func Worst(ds []Diagnostic) (worst Severity, found bool) {
	for _, d := range ds {
		worst = max(worst, d.Severity)
	}
	return worst, len(ds) > 0
}

// HasErrors reports whether one of ds is an error.
func HasErrors(ds []Diagnostic) bool {
	worst, _ := Worst(ds)
	return worst == Error
}

// MaxFindings is the maximum number of diagnostics of one rule that are reported
// for a document. One more diagnostic counts the rest.
const MaxFindings = 1000

// A Limiter keeps the first MaxFindings diagnostics of a rule and counts the rest.
// The zero value is ready to use.
type Limiter struct {
	count, dropped int
	first, last    Diagnostic // that were dropped
	worst          Severity   // of those before last
}

// Add reports whether to keep a diagnostic. If not, it returns a copy in its place,
// which the caller may change until the next call.
func (e *Limiter) Add(d Diagnostic) (instead *Diagnostic, keep bool) {
	if e.count < MaxFindings {
		e.count++
		return nil, true
	}
	if e.dropped == 0 {
		e.first = d
	}
	e.worst = max(e.worst, e.last.Severity)
	e.dropped++
	e.last = d
	return &e.last, false
}

// Full reports whether the next diagnostic will be dropped.
func (e *Limiter) Full() bool { return e.count == MaxFindings }

// Rest returns a diagnostic that stands for the dropped ones, or nil.
func (e *Limiter) Rest() *Diagnostic {
	if e.dropped == 0 {
		return nil
	}
	return &Diagnostic{Rule: e.first.Rule, Severity: max(e.worst, e.last.Severity), Span: e.first.Span,
		Message: fmt.Sprintf("%d more findings of this rule, from here on", e.dropped)}
}
