package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/report"
)

// configFlag names the configuration that holds a project's own rules.
type configFlag struct {
	Config string `placeholder:"FILE" help:"The configuration with the rules of the project. The default is the nearest .sspolicy.json in or above the working directory; none turns it off."`
}

type rulesCmd struct {
	List rulesListCmd `cmd:"" default:"withargs" help:"List the rules of lint: those of sspolicy and those of the configuration."`
	Test rulesTestCmd `cmd:"" help:"Check the rules of the configuration with their examples."`
}

type rulesListCmd struct {
	textOrJSON
	configFlag
}

// Run executes the command.
func (c *rulesListCmd) Run(p *program) error {
	settings, err := p.configuration(c.Config, ".")
	if err != nil {
		return err
	}
	if c.Format == "json" {
		list := ruleList{Version: explanationVersion}
		for _, r := range settings.AllRules() {
			list.Rules = append(list.Rules, newRuleJSON(r))
		}
		return p.output("", func(w io.Writer) error { return report.Encode(w, list) })
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, r := range settings.AllRules() {
		group := ""
		if r.Group != "" {
			group = " (--with " + r.Group + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\n", r.Name, r.Severity, cmp.Or(r.Fixes, "-"), harmless(r.Summary), group)
	}
	return w.Flush()
}

type rulesTestCmd struct {
	textOrJSON
	configFlag
	JUnit string    `name:"junit" placeholder:"FILE" help:"Write the outcomes as JUnit XML to this file too."`
	At    time.Time `format:"2006-01-02" placeholder:"DATE" help:"The time that the examples are checked for, as 2006-01-02 (now)."`
}

// Help returns the description for "sspolicy rules test --help".
func (rulesTestCmd) Help() string {
	return "An example under \"good\" must have no finding of its rule, one under \"bad\" at least one. Exits with 1 if an example fails. A rule without examples is listed, and passes."
}

// A ruleTest is the result of the examples of a rule.
type ruleTest struct {
	Rule     string        `json:"rule"`
	OK       bool          `json:"ok"`
	Examples []exampleTest `json:"examples"`
}

// An exampleTest is the result of an example.
type exampleTest struct {
	Name    string    `json:"name"`
	OK      bool      `json:"ok"`
	At      placeJSON `json:"at"`
	Problem string    `json:"problem,omitempty"`
}

// A ruleTestReport is the JSON form of the results.
type ruleTestReport struct {
	Version int        `json:"version"`
	Rules   []ruleTest `json:"rules"`
	Failed  int        `json:"failed"` // rules
}

// Run executes the command.
func (c *rulesTestCmd) Run(p *program) error {
	settings, err := p.configuration(c.Config, ".")
	if err != nil {
		return err
	}
	if len(settings.Rules) == 0 {
		return usage("no rules: %s has no \"rules\", or there is none in this folder or above", config.Name)
	}
	all := ruleTestReport{Version: 1}
	for _, r := range settings.Rules {
		t := ruleTest{Rule: r.Name, OK: true, Examples: []exampleTest{}}
		for _, o := range r.Test(c.At) {
			t.Examples = append(t.Examples, exampleTest{o.Name, o.Problem == "", newPlaceJSON(o.At), o.Problem})
			t.OK = t.OK && o.Problem == ""
		}
		if all.Rules = append(all.Rules, t); !t.OK {
			all.Failed++
		}
	}
	if c.JUnit != "" {
		if err := p.output(c.JUnit, func(w io.Writer) error { return report.WriteJUnit(w, all.suites()) }); err != nil {
			return err
		}
	}
	write := all.write
	if c.Format == "json" {
		write = func(w io.Writer) error { return report.Encode(w, all) }
	}
	if err := p.output("", write); err != nil {
		return err
	}
	if all.Failed > 0 {
		return errFindings
	}
	return nil
}

// write writes a line for each rule, and one for each failed example.
func (r *ruleTestReport) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, rule := range r.Rules {
		verdict, count := "ok", fmt.Sprintf("examples: %d", len(rule.Examples))
		switch {
		case !rule.OK:
			verdict = "FAIL"
		case len(rule.Examples) == 0:
			verdict, count = "-", "no examples"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", verdict, rule.Rule, count)
	}
	t.Flush()
	for _, rule := range r.Rules {
		for _, e := range rule.Examples {
			if !e.OK {
				fmt.Fprintf(w, "%s: %s, example %s: %s\n", e.At, rule.Rule, e.Name, harmless(e.Problem))
			}
		}
	}
	_, err := fmt.Fprintf(w, "rules: %d, failed: %d\n", len(r.Rules), r.Failed)
	return err
}

// suites returns the results as JUnit suites, one for each rule.
func (r *ruleTestReport) suites() (all []report.Suite) {
	for _, rule := range r.Rules {
		s := report.Suite{Name: rule.Rule}
		for _, e := range rule.Examples {
			k := report.Case{Name: e.Name, Class: rule.Rule}
			if !e.OK {
				k.Failure, k.Output = e.Problem, e.At.String()+": "+e.Problem
			}
			s.Cases = append(s.Cases, k)
		}
		all = append(all, s)
	}
	return all
}
