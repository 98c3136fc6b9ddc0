package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

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
	Name string `arg:"" complete:"names" help:"A rule, such as forward-reference; a key, such as port or retry.conceal; or a state, such as CONNECTED."`
}

// Run executes the command.
func (c *explainCmd) Run(p *program) error {
	text := explain.Explain(c.Name)
	if text == "" {
		return unknown("no rule, key or state has the name", c.Name, explain.Names())
	}
	if c.Format == "text" {
		return p.output("", write(text))
	}
	e := explanation{Version: explanationVersion, Name: c.Name, Text: text}
	if r := rules.Lookup(c.Name); r != nil {
		e.Rule = newRuleJSON(r)
	}
	return p.output("", func(w io.Writer) error { return report.Encode(w, e) })
}

type rulesCmd struct {
	textOrJSON
}

// Run executes the command.
func (c *rulesCmd) Run(p *program) error {
	if c.Format == "json" {
		list := ruleList{Version: explanationVersion}
		for _, r := range rules.All() {
			list.Rules = append(list.Rules, newRuleJSON(r))
		}
		return p.output("", func(w io.Writer) error { return report.Encode(w, list) })
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, r := range rules.All() {
		group := ""
		if r.Group != "" {
			group = " (--with " + r.Group + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\n", r.Name, r.Severity, cmp.Or(r.Fixes, "-"), r.Summary, group)
	}
	return w.Flush()
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

type schemaCmd struct{}

// Help is what "sspolicy schema --help" adds.
func (schemaCmd) Help() string {
	return "The schema is JSON Schema draft 2020-12, and the one that sspolicy itself checks policies with. Editors complete and explain keys by it."
}

// Run executes the command.
func (schemaCmd) Run(p *program) error { return p.output("", write(schema.JSONSchema)) }
