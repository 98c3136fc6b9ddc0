package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/template"

	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// reportFlags select how to report, and which findings are failures.
type reportFlags struct {
	Format   []outputFlag `sep:"none" complete:"formats" placeholder:"FORMAT[=FILE]" help:"The format of the report: text (the default), json, jsonl, sarif, github, gitlab, junit or template; to FILE, if given. May be repeated, with a file each."`
	Template string       `name:"format-template" placeholder:"TEXT" help:"Report with this Go text/template over the list of diagnostics, as in JSON; @FILE for the content of a file."`
	colorFlag
	Quiet     bool         `short:"q" help:"Print findings only: no summary, and no list of the fixes that were applied."`
	FailLevel report.Level `enum:",error,warning,info,none" default:"" placeholder:"LEVEL" help:"Fail on findings of this severity and above: error, warning, info or none (${fail_level})."`
}

// An outputFlag is a format and its destination: FORMAT or FORMAT=FILE.
type outputFlag struct {
	report.Output
	file string // empty or "-" for standard output
}

// UnmarshalText parses the value of a flag.
func (o *outputFlag) UnmarshalText(text []byte) error {
	name, file, named := strings.Cut(string(text), "=")
	o.Format, o.file = report.Format(name), file
	switch {
	case !slices.Contains(report.Formats(), o.Format):
		return fmt.Errorf("unknown format %q: want one of %s", name, formatNames())
	case named && file == "":
		return fmt.Errorf("missing file name after %q", text)
	}
	return nil
}

func formatNames() string {
	var names []string
	for _, f := range report.Formats() {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

// outputs returns the reports to write.
func (f *reportFlags) outputs(p *program, files []string) ([]outputFlag, error) {
	outs := slices.Clone(f.Format)
	isTemplate := func(o outputFlag) bool { return o.Format == report.FormatTemplate }
	switch {
	case f.Template == "" && slices.ContainsFunc(outs, isTemplate):
		return nil, usage("--format template needs --format-template")
	case f.Template != "" && !slices.ContainsFunc(outs, isTemplate):
		outs = append(outs, outputFlag{Output: report.Output{Format: report.FormatTemplate}})
	case len(outs) == 0:
		outs = append(outs, outputFlag{Output: report.Output{Format: report.FormatText}})
	}
	t, err := f.template()
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, file := range files {
		names[identity(file)] = "that is a policy"
	}
	names["-"] = ""
	for i := range outs {
		o := &outs[i]
		o.Template = t
		if o.file == "" {
			o.file = "-"
		}
		o.Color = o.file == "-" && f.color(p.stdout)
		file := identity(o.file)
		switch problem := names[file]; {
		case problem != "" && file == "-":
			return nil, usage("--format: %s: name files for the others, as in --format sarif=FILE", problem)
		case problem != "":
			return nil, usage("--format %s=%s: %s", o.Format, o.file, problem)
		}
		names[file] = "only one format can go there"
		if file == "-" {
			names[file] = "only one format can go to standard output"
		}
	}
	return outs, nil
}

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// template returns the template of the report, or nil.
func (f *reportFlags) template() (*template.Template, error) {
	text := f.Template
	if text == "" {
		return nil, nil
	}
	if file, ok := strings.CutPrefix(text, "@"); ok {
		b, err := readFile(file)
		if err != nil {
			return nil, fileError(file, err)
		}
		text = string(b)
	}
	t, err := report.ParseTemplate(text)
	if err != nil {
		return nil, usage("%w", err)
	}
	return t, nil
}

// write writes the findings in files by the rules of sspolicy and a project's own.
func (f *reportFlags) write(p *program, outs []outputFlag, files []string, own []*lint.Rule, found []schema.Diagnostic, fails func(schema.Diagnostic) bool) error {
	r := &report.Report{Files: files, Diagnostics: found, Version: version(), Fails: fails}
	for _, l := range slices.Concat(rules.All(), own) {
		r.Rules = append(r.Rules, report.Rule{
			Name: l.Name, Severity: l.Severity, Summary: l.Summary, Why: l.Why, LWS: l.LWS, Own: lint.Lookup(own, l.Name) != nil,
		})
	}
	r.Dir, _ = os.Getwd() // on error, names stay absolute
	for _, o := range outs {
		err := p.output(o.file, func(w io.Writer) error { return o.Write(w, r) })
		if e, ok := errors.AsType[template.ExecError](err); ok {
			return usage("%w", e)
		}
		if err != nil {
			return err
		}
		if s := r.Summary(); s != "" && o.Format == report.FormatText && o.file == "-" && !f.Quiet && (r.Fixable() || isTerminal(p.stderr)) {
			fmt.Fprintln(p.stderr, s)
		}
	}
	return nil
}
