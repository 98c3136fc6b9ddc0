package report

import (
	"io"
	"slices"

	"github.com/secure-streams/sspolicy/schema"
)

// The types below are the part of SARIF 2.1.0 (OASIS Standard, with Errata 01) that a
// report needs. The standard or its readers require the fields without omitempty.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool       sarifTool       `json:"tool"`
	Artifacts  []sarifArtifact `json:"artifacts"`
	Results    []sarifResult   `json:"results"`
	ColumnKind string          `json:"columnKind"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	Version        string      `json:"version,omitempty"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID                   string             `json:"id"`
	ShortDescription     *sarifMessage      `json:"shortDescription,omitempty"`
	FullDescription      *sarifMessage      `json:"fullDescription,omitempty"`
	HelpURI              string             `json:"helpUri,omitempty"`
	Help                 *sarifMessage      `json:"help,omitempty"`
	DefaultConfiguration sarifConfiguration `json:"defaultConfiguration"`
}

type sarifConfiguration struct {
	Level string `json:"level"`
}

type sarifMessage struct {
	Text     string `json:"text"`
	Markdown string `json:"markdown,omitempty"`
}

type sarifArtifact struct {
	Location sarifArtifactLocation `json:"location"`
}

type sarifArtifactLocation struct {
	URI         string        `json:"uri"`
	Description *sarifMessage `json:"description,omitempty"`
}

type sarifResult struct {
	RuleID              string            `json:"ruleId"`
	RuleIndex           int               `json:"ruleIndex"`
	Level               string            `json:"level"`
	Message             sarifMessage      `json:"message"`
	Locations           []sarifLocation   `json:"locations"`
	RelatedLocations    []sarifLocation   `json:"relatedLocations,omitempty"`
	PartialFingerprints map[string]string `json:"partialFingerprints"`
	Fixes               []sarifFix        `json:"fixes,omitempty"`
}

type sarifLocation struct {
	ID               *int                  `json:"id,omitempty"`
	PhysicalLocation sarifPhysicalLocation `json:"physicalLocation"`
	Message          *sarifMessage         `json:"message,omitempty"`
}

type sarifPhysicalLocation struct {
	ArtifactLocation sarifArtifactLocation `json:"artifactLocation"`
	Region           sarifRegion           `json:"region"`
}

// A sarifRegion is a span. EndColumn is exclusive.
type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn"`
	EndLine     int `json:"endLine"`
	EndColumn   int `json:"endColumn"`
}

type sarifFix struct {
	Description     sarifMessage          `json:"description"`
	ArtifactChanges []sarifArtifactChange `json:"artifactChanges"`
}

type sarifArtifactChange struct {
	ArtifactLocation sarifArtifactLocation `json:"artifactLocation"`
	Replacements     []sarifReplacement    `json:"replacements"`
}

type sarifReplacement struct {
	DeletedRegion   sarifRegion  `json:"deletedRegion"`
	InsertedContent sarifContent `json:"insertedContent"`
}

type sarifContent struct {
	Text string `json:"text"`
}

// Docs is the address of the documentation.
const Docs = home + "/blob/main/docs/"

const (
	home      = "https://github.com/secure-streams/sspolicy"
	rulePages = Docs + "rules/"

	// fingerprintName has the version of the way in which fingerprints are made.
	fingerprintName = "sspolicyFinding/v1"
)

var sarifLevels = [...]string{schema.Info: "note", schema.Warning: "warning", schema.Error: "error"}

// writeSARIF writes the report as a SARIF log of one run.
func writeSARIF(w io.Writer, r *Report) error {
	run := sarifRun{
		Tool: sarifTool{sarifDriver{
			Name: "sspolicy", Version: r.Version, InformationURI: home, Rules: []sarifRule{},
		}},
		Artifacts:  []sarifArtifact{},
		Results:    []sarifResult{},
		ColumnKind: "unicodeCodePoints",
	}
	for _, name := range r.files() {
		run.Artifacts = append(run.Artifacts, sarifArtifact{r.artifact(name)})
	}
	rules := map[string]int{}
	addRule := func(rule sarifRule) {
		rules[rule.ID] = len(run.Tool.Driver.Rules)
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, rule)
	}
	for _, rule := range r.Rules {
		addRule(newSARIFRule(rule))
	}
	sums := Fingerprints(r.Diagnostics)
	for i, d := range r.Diagnostics {
		if _, ok := rules[d.Rule]; !ok {
			addRule(sarifRule{ID: d.Rule, DefaultConfiguration: sarifConfiguration{sarifLevels[d.Severity]}})
		}
		run.Results = append(run.Results, r.sarifResult(d, rules[d.Rule], sums[i]))
	}
	return Encode(w, sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0",
		Runs:    []sarifRun{run},
	})
}

func newSARIFRule(r Rule) sarifRule {
	page := rulePages + r.Name + ".md"
	if r.Own {
		page = ""
	}
	return sarifRule{
		ID:                   r.Name,
		ShortDescription:     &sarifMessage{Text: r.Summary},
		FullDescription:      &sarifMessage{Text: r.Why},
		HelpURI:              page,
		Help:                 r.help(),
		DefaultConfiguration: sarifConfiguration{sarifLevels[r.Severity]},
	}
}

// help returns the description of a rule. Its page has examples as well.
func (r Rule) help() *sarifMessage {
	text := r.Why
	markdown := r.Why
	if r.LWS != "" {
		text += "\n\nWhat lws does: " + r.LWS
		markdown += "\n\n**What lws does:** " + r.LWS
	}
	return &sarifMessage{text, markdown}
}

func (r *Report) sarifResult(d schema.Diagnostic, rule int, sum string) sarifResult {
	result := sarifResult{
		RuleID: d.Rule, RuleIndex: rule, Level: sarifLevels[d.Severity],
		Message:             sarifMessage{Text: d.Message},
		Locations:           []sarifLocation{{PhysicalLocation: r.physical(d.Span)}},
		PartialFingerprints: map[string]string{fingerprintName: sum},
	}
	for i, related := range d.Related {
		id := i + 1
		result.RelatedLocations = append(result.RelatedLocations, sarifLocation{
			ID: &id, PhysicalLocation: r.physical(related.Span), Message: &sarifMessage{Text: related.Message},
		})
	}
	for _, f := range d.Fixes {
		if len(f.Edits) > 0 {
			result.Fixes = append(result.Fixes, sarifFix{sarifMessage{Text: f.Message}, r.sarifChanges(f.Edits)})
		}
	}
	return result
}

// sarifChanges groups edits by file.
func (r *Report) sarifChanges(edits []schema.Edit) []sarifArtifactChange {
	var changes []sarifArtifactChange
	for _, e := range edits {
		at := r.artifact(e.Span.Source.Name)
		i := slices.IndexFunc(changes, func(c sarifArtifactChange) bool { return c.ArtifactLocation.URI == at.URI })
		if i < 0 {
			i = len(changes)
			changes = append(changes, sarifArtifactChange{ArtifactLocation: at})
		}
		changes[i].Replacements = append(changes[i].Replacements,
			sarifReplacement{newSARIFRegion(e.Span), sarifContent{e.NewText}})
	}
	return changes
}

func (r *Report) physical(s schema.Span) sarifPhysicalLocation {
	return sarifPhysicalLocation{r.artifact(s.Source.Name), newSARIFRegion(s)}
}

func (r *Report) artifact(name string) sarifArtifactLocation {
	at := sarifArtifactLocation{URI: r.uri(name)}
	if name == stdin {
		at.Description = &sarifMessage{Text: "standard input"}
	}
	return at
}

func newSARIFRegion(s schema.Span) sarifRegion {
	s = clamp(s)
	start, end := s.Position(), s.Source.Position(s.End)
	return sarifRegion{start.Line, start.Column, end.Line, end.Column}
}
