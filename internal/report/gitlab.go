package report

import (
	"io"

	"github.com/secure-streams/sspolicy/schema"
)

// A gitlabIssue is the part of a Code Climate issue that GitLab reads.
type gitlabIssue struct {
	Description string         `json:"description"`
	CheckName   string         `json:"check_name"`
	Fingerprint string         `json:"fingerprint"` // unique in a report
	Severity    string         `json:"severity"`
	Location    gitlabLocation `json:"location"`
}

type gitlabLocation struct {
	Path  string      `json:"path"`
	Lines gitlabLines `json:"lines"`
}

type gitlabLines struct {
	Begin int `json:"begin"`
	End   int `json:"end"`
}

var gitlabSeverities = [...]string{schema.Info: "info", schema.Warning: "minor", schema.Error: "major"}

// writeGitLab writes the diagnostics as a Code Quality report of GitLab.
func writeGitLab(w io.Writer, r *Report) error {
	issues := make([]gitlabIssue, 0, len(r.Diagnostics))
	sums := Fingerprints(r.Diagnostics)
	for i, d := range r.Diagnostics {
		s := clamp(d.Span)
		path := r.path(s.Source.Name)
		issues = append(issues, gitlabIssue{
			d.Message, d.Rule, hash(path, sums[i]), gitlabSeverities[d.Severity],
			gitlabLocation{path, gitlabLines{s.Position().Line, s.Source.Position(s.End).Line}},
		})
	}
	return Encode(w, issues)
}
