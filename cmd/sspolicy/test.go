package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/internal/policytest"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/schema"
)

type testCmd struct {
	textOrJSON
	JUnit string   `name:"junit" placeholder:"FILE" help:"Write the outcomes as JUnit XML to this file too."`
	Write bool     `help:"Update the files with what the streams do. A test without expectations gets all of them."`
	Hurry int      `default:"100" placeholder:"N" help:"Divide the times of tests under faults by N. Timeouts are not reduced below 1 s (${default})."`
	Files []string `arg:"" name:"file" help:"Test files, and folders to search for them: *.test.json files, and other JSON files with a policy and tests, without those that .gitignore files or the configuration exclude."`
}

// Help returns the description for "sspolicy test --help".
func (testCmd) Help() string {
	return "A test file names a policy and says what its streams do: where they connect to, the request, the waits before retries, the states under a fault. Streams run in this process and connect to servers in it. Exits with 1 if a test fails."
}

// Validate checks the flags.
func (c *testCmd) Validate() error {
	if c.Hurry < 1 || c.Hurry > 1000 {
		return fmt.Errorf("--hurry must be 1 to 1000, but is %d", c.Hurry)
	}
	return nil
}

// A testRow is the result of a test.
type testRow struct {
	File     string        `json:"file"`
	Name     string        `json:"name"`
	At       placeJSON     `json:"at"`
	OK       bool          `json:"ok"`
	Seconds  seconds       `json:"seconds"`
	Failures []testFailure `json:"failures"`
}

// A testFailure is an expectation that does not hold.
type testFailure struct {
	Field   string    `json:"field,omitempty"`
	At      placeJSON `json:"at"`
	Want    string    `json:"want,omitempty"` // JSON
	Got     string    `json:"got,omitempty"`  // JSON
	Problem string    `json:"problem,omitempty"`
}

func (f *testFailure) String() string {
	text := f.Problem
	if text == "" {
		text = fmt.Sprintf("expected %s, got %s", orNone(f.Want), orNone(f.Got))
	}
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	return text
}

// orNone returns a value in JSON as text, with none for a missing header.
func orNone(text string) string {
	if text == "null" {
		return "none"
	}
	return text
}

// A testReport is the JSON form of the results.
type testReport struct {
	Version int        `json:"version"`
	Tests   []*testRow `json:"tests"`
	Failed  int        `json:"failed"`
}

// Run executes the command.
func (c *testCmd) Run(p *program) error {
	interrupt, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	targets, err := (&search{program: p, flags: &fileFlags{Files: c.Files}, what: "test files", wants: isTests}).run()
	if err != nil {
		return err
	}
	var files []*policytest.File
	for _, t := range targets {
		name := t.file
		text, err := p.read(name)
		if err != nil {
			return fileError(name, err)
		}
		f, wrong := policytest.Parse(displayName(name), text)
		if len(wrong) > 0 {
			return errors.Join(report.Write(p.stderr, report.FormatText, wrong), &exitError{code: exitUsage})
		}
		if err := p.assembleTest(f); err != nil {
			return err
		}
		files = append(files, f)
	}
	all := &testReport{Version: 1, Tests: []*testRow{}}
	for i, f := range files {
		results, err := f.Run(interrupt, policytest.Options{Transports: faultTransports, Hurry: c.Hurry})
		if refused, ok := errors.AsType[*sspolicy.Error](err); ok {
			found := slices.DeleteFunc(refused.Diagnostics, func(d schema.Diagnostic) bool { return d.Severity < schema.Error })
			return errors.Join(report.Write(p.stderr, report.FormatText, found), errFindings)
		}
		if unread, ok := errors.AsType[*fs.PathError](err); ok {
			return fileError(unread.Path, err)
		}
		if err != nil {
			return err
		}
		if c.Write {
			text, changed := f.Recorded(results)
			if changed > 0 {
				if err := p.output(targets[i].file, write(text)); err != nil {
					return err
				}
			}
			fmt.Fprintf(p.stderr, "%s: changes: %d\n", harmless(f.Source.Name), changed)
			continue
		}
		for _, r := range results {
			all.add(f.Source.Name, r)
		}
	}
	if c.Write {
		return nil
	}
	if err := c.report(p, all); err != nil {
		return err
	}
	if all.Failed > 0 {
		return errFindings
	}
	return nil
}

// assembleTest replaces a fragment that a test file names as its policy by the base
// and the fragment. It leaves a policy that it cannot read to the run, which reports it.
func (p *program) assembleTest(f *policytest.File) error {
	d, err := readBase(f.Policy)
	if err != nil {
		return nil
	}
	base, err := p.base(d)
	if err == nil && base != nil {
		f.Policy, f.Overlays = base.Source.Name, slices.Insert(f.Overlays, 0, f.Policy)
	}
	return err
}

// isTests reports whether a file is a test file, by its name or content.
func isTests(file string, _ *config.Config) bool {
	if strings.HasSuffix(file, config.TestSuffix) {
		return true
	}
	text, err := readFile(file)
	return err == nil && policytest.Is(text)
}

func (r *testReport) add(file string, t *policytest.Result) {
	row := &testRow{File: file, Name: t.Name, At: newPlaceJSON(t.At), OK: t.OK(), Seconds: seconds(t.Elapsed), Failures: []testFailure{}}
	for _, f := range t.Failures {
		row.Failures = append(row.Failures, testFailure{f.Field, newPlaceJSON(f.At), f.Want, f.Got, f.Problem})
	}
	if r.Tests = append(r.Tests, row); !row.OK {
		r.Failed++
	}
}

// report writes the outcomes.
func (c *testCmd) report(p *program, all *testReport) error {
	if c.JUnit != "" {
		if err := p.output(c.JUnit, func(w io.Writer) error { return report.WriteJUnit(w, all.suites()) }); err != nil {
			return err
		}
	}
	write := all.write
	if c.Format == "json" {
		write = func(w io.Writer) error { return report.Encode(w, all) }
	}
	return p.output("", write)
}

// write writes a line for each test, and one for each failed expectation.
func (r *testReport) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range r.Tests {
		verdict := "ok"
		if !row.OK {
			verdict = "FAIL"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", verdict, harmless(row.File), harmless(row.Name))
	}
	t.Flush()
	for _, row := range r.Tests {
		for _, f := range row.Failures {
			fmt.Fprintf(w, "%s: %s: %s\n", f.At, harmless(row.Name), harmless(f.String()))
		}
	}
	_, err := fmt.Fprintf(w, "tests: %d, failed: %d\n", len(r.Tests), r.Failed)
	return err
}

// suites returns the results as JUnit suites, one for each file.
func (r *testReport) suites() []report.Suite {
	var all []report.Suite
	for _, row := range r.Tests {
		if len(all) == 0 || all[len(all)-1].Name != row.File {
			all = append(all, report.Suite{Name: row.File})
		}
		s := &all[len(all)-1]
		k := report.Case{Name: row.Name, Class: row.File, Seconds: time.Duration(row.Seconds).Seconds()}
		for _, f := range row.Failures {
			if k.Failure == "" {
				k.Failure = f.String()
			}
			k.Output += f.At.String() + ": " + f.String() + "\n"
		}
		s.Cases = append(s.Cases, k)
	}
	return all
}
