package main

import (
	"cmp"
	"io"
	"strings"

	"github.com/secure-streams/sspolicy/internal/explain"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// textOrJSON is the form of the output of commands that print documentation.
type textOrJSON struct {
	Format string `enum:"text,json" default:"text" help:"How to print: text or json (${default})."`
}

type explainCmd struct {
	textOrJSON
	configFlag
	Name string `arg:"" complete:"names" help:"A rule, such as forward-reference, or one of the configuration, such as corp/own-roots; a key, such as port or retry.conceal; or a state, such as CONNECTED."`
}

// Run executes the command.
func (c *explainCmd) Run(p *program) error {
	text := explain.Explain(c.Name)
	rule := rules.Lookup(c.Name)
	if text == "" && strings.Contains(c.Name, "/") {
		settings, err := p.configuration(c.Config, ".")
		if err != nil {
			return err
		}
		if rule = settings.Lookup(c.Name); rule != nil {
			text = explain.Rule(rule)
		}
	}
	if text == "" {
		return unknown("no rule, key or state has the name", c.Name, explain.Names())
	}
	if c.Format == "text" {
		return p.output("", write(harmless(text)))
	}
	e := explanation{Version: explanationVersion, Name: c.Name, Text: text}
	if rule != nil {
		e.Rule = newRuleJSON(rule)
	}
	return p.output("", func(w io.Writer) error { return report.Encode(w, e) })
}

// explanationVersion is the version of the JSON forms of explain and rules.
const explanationVersion = 1

type explanation struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	Text    string    `json:"text"` // in Markdown
	Rule    *ruleJSON `json:"rule,omitempty"`
}

type ruleList struct {
	Version int         `json:"version"`
	Rules   []*ruleJSON `json:"rules"`
}

type ruleJSON struct {
	Name         string          `json:"name"`
	Severity     schema.Severity `json:"severity"`
	Group        string          `json:"group,omitempty"` // opt-in with --with
	Fixes        lint.Fixability `json:"fixes"`           // none, safe, unsafe or mixed
	Suppressible bool            `json:"suppressible"`
	Summary      string          `json:"summary"`
	Why          string          `json:"why"`
	LWS          string          `json:"lws"`
	Base         string          `json:"base,omitempty"` // the policy that bad and good are fragments for
	Bad          string          `json:"bad"`
	Good         string          `json:"good"`
	Versions     []string        `json:"versions,omitempty"` // of lws, for the examples
}

func newRuleJSON(r *lint.Rule) *ruleJSON {
	j := &ruleJSON{
		Name: r.Name, Severity: r.Severity, Group: r.Group, Fixes: cmp.Or(r.Fixes, "none"), Suppressible: !r.Firm,
		Summary: r.Summary, Why: r.Why, LWS: r.LWS, Base: strings.TrimSpace(r.Base), Bad: strings.TrimSpace(r.Bad), Good: strings.TrimSpace(r.Good),
	}
	for _, v := range r.Versions {
		j.Versions = append(j.Versions, v.String())
	}
	return j
}

type schemaCmd struct {
	For string `enum:",vscode" default:"" placeholder:"EDITOR" help:"Print the settings that make an editor use the schema: vscode, for .vscode/settings.json."`
}

// Help returns the description for "sspolicy schema --help".
func (schemaCmd) Help() string {
	return "The schema is JSON Schema draft 2020-12, and the one that sspolicy itself checks policies with. Editors complete and explain keys by it. The settings of --for name the file policy.schema.json in the folder of the project: sspolicy schema > policy.schema.json"
}

// vscodeSettings associates the schema with files that look like policies.
const vscodeSettings = `{
  "json.schemas": [
    {"fileMatch": ["*policy*.json"], "url": "./policy.schema.json"}
  ]
}
`

// Run executes the command.
func (c schemaCmd) Run(p *program) error {
	if c.For == "vscode" {
		return p.output("", write(vscodeSettings))
	}
	return p.output("", write(schema.JSONSchema))
}
