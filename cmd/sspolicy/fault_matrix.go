package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/secure-streams/sspolicy/faulttest"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

type faultMatrixCmd struct {
	timeFlags
	Stream []string `sep:"none" complete:"streamtypes" placeholder:"NAME" help:"Only this streamtype. May be repeated."`
	Fault  []string `sep:"none" complete:"faults" placeholder:"NAME" help:"Only this fault, or the faults of this preset. May be repeated."`
	JUnit  string   `name:"junit" placeholder:"FILE" help:"Write the outcomes as JUnit XML to this file too."`
	textOrJSON
	Files []string `arg:"" name:"policy" help:"The policies."`
}

// Help returns the description for "sspolicy fault matrix --help".
func (faultMatrixCmd) Help() string {
	return "Streamtypes of servers, local sinks and files are skipped, since no fault applies to them. A policy with errors is reported and skipped, and the exit code is then 1. --hurry makes it take seconds."
}

// A faultRow is the result of a fault on a streamtype.
type faultRow struct {
	Policy   string       `json:"policy"`
	Stream   string       `json:"stream"`
	Fault    string       `json:"fault"`
	OK       bool         `json:"ok"`
	Problem  string       `json:"problem,omitempty"`
	Want     string       `json:"want"`
	Got      string       `json:"got"`
	Hurry    int          `json:"hurry"`
	Seconds  seconds      `json:"seconds"`
	Timeline []faultEvent `json:"timeline"`
}

type faultEvent struct {
	T     seconds `json:"t"`
	Event string  `json:"event"`
	Cause string  `json:"cause,omitempty"`
}

func newFaultRow(file string, r *faulttest.Report, hurry int) *faultRow {
	row := &faultRow{
		Policy: displayName(file), Stream: r.Stream, Fault: r.Fault, OK: r.OK, Problem: r.Problem, Want: r.Want, Got: r.Got,
		Hurry: hurry, Seconds: seconds(r.Elapsed), Timeline: []faultEvent{},
	}
	for _, e := range r.Events {
		row.Timeline = append(row.Timeline, faultEvent{seconds(e.At), e.Name, e.Cause})
	}
	return row
}

// A faultMatrix is the JSON form of the results.
type faultMatrix struct {
	Version int         `json:"version"`
	Rows    []*faultRow `json:"rows"`
	Failed  int         `json:"failed"`
	Seconds seconds     `json:"seconds"`
}

// Run executes the command.
func (c *faultMatrixCmd) Run(p *program) error {
	faults, err := c.faults()
	if err != nil {
		return err
	}
	interrupt, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m := &faultMatrix{Version: 1}
	start := time.Now()
	o := c.options()
	o.Authority = faulttest.NewAuthority()
	found := map[string]bool{}
	var refused error
	var cells []faulttest.Cell
	var files []string // files of the cells
	for _, file := range c.Files {
		_, compiled, err := p.compileAssembled(file, nil, "", lint.Options{}, schema.Error)
		if err != nil {
			if len(c.Files) == 1 {
				return err
			}
			fmt.Fprintf(p.stderr, "sspolicy: %s is left out\n", harmless(displayName(file)))
			refused = err
			continue
		}
		for _, st := range compiled.StreamTypes {
			found[st.Name] = true
		}
		cells = append(cells, faulttest.Cells(compiled, c.Stream, faults)...)
		files = append(files, slices.Repeat([]string{file}, len(cells)-len(files))...)
	}
	for _, name := range c.Stream {
		if !found[name] {
			return &exitError{exitUsage, fmt.Errorf("no policy has the streamtype %q", name)}
		}
	}
	if len(cells) == 0 && refused == nil {
		why := `none of these faults fits these streamtypes: "sspolicy fault explain" names the protocols of a fault`
		if c.Fault == nil && c.Stream == nil {
			why = "no streamtype to run: faults are for clients, and these policies have only servers, local sinks or files"
		}
		return &exitError{exitUsage, errors.New(why)}
	}
	m.Rows = make([]*faultRow, len(cells))
	done := 0
	bar := progress{w: p.stderr, on: isTerminal(p.stderr)}
	err = faulttest.Matrix(interrupt, cells, o, func(i int, r *faulttest.Report, err error) {
		if err != nil {
			r = &faulttest.Report{Stream: cells[i].Stream, Fault: cells[i].Fault.Name, Problem: plain(err)}
		}
		if m.Rows[i] = newFaultRow(files[i], r, c.Hurry); !r.OK {
			m.Failed++
		}
		done++
		bar.show(done, len(cells), displayName(files[i]))
	})
	bar.clear()
	if err != nil {
		return err
	}
	m.Seconds = seconds(time.Since(start))
	if err := c.write(p, m); err != nil {
		return err
	}
	if m.Failed > 0 {
		return &exitError{code: exitStream}
	}
	return refused
}

// faults returns the faults that --fault names.
func (c *faultMatrixCmd) faults() (all []*faulttest.Fault, err error) {
	names := faultNames()
	for _, name := range c.Fault {
		if f := faulttest.Lookup(name); f != nil {
			all = append(all, f)
			continue
		}
		i := slices.IndexFunc(faulttest.Presets, func(s faulttest.Preset) bool { return s.Name == name })
		if i < 0 {
			return nil, unknown("\"sspolicy fault list\" has no fault or preset", name, names)
		}
		all = append(all, faulttest.Presets[i].Faults...)
	}
	return all, nil
}

// write writes the outcomes.
func (c *faultMatrixCmd) write(p *program, m *faultMatrix) error {
	if c.JUnit != "" {
		if err := p.output(c.JUnit, func(w io.Writer) error { return report.WriteJUnit(w, m.suites()) }); err != nil {
			return err
		}
	}
	if c.Format == "json" {
		return p.output("", func(w io.Writer) error { return report.Encode(w, m) })
	}
	return p.output("", func(w io.Writer) error { return c.print(w, m, isTerminal(p.stdout)) })
}

// print prints a table, and the difference for each row that is not as expected.
// With times, it ends with the duration of the matrix and its slowest row.
func (c *faultMatrixCmd) print(w io.Writer, m *faultMatrix, times bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var slowest *faultRow
	file := ""
	for _, r := range m.Rows {
		if len(c.Files) > 1 && r.Policy != file {
			t.Flush()
			fmt.Fprintln(w, r.Policy)
			file = r.Policy
		}
		verdict := "ok"
		if !r.OK {
			verdict = "FAIL"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", verdict, r.Stream, r.Fault, r.Got)
		if slowest == nil || r.Seconds > slowest.Seconds {
			slowest = r
		}
	}
	t.Flush()
	for _, r := range m.Rows {
		if !r.OK {
			fmt.Fprintf(w, "\n%s: %s of %s: %s\n  want %s\n  got  %s\n", r.Policy, r.Fault, r.Stream, harmless(r.Problem), r.Want, r.Got)
		}
	}
	summary := fmt.Sprintf("%d of %d as expected", len(m.Rows)-m.Failed, len(m.Rows))
	if c.Hurry > 1 {
		summary += "; " + c.hurried()
	}
	if slowest != nil && times {
		summary += fmt.Sprintf("; %s s, of which %s for %s of %s", m.Seconds, slowest.Seconds, slowest.Fault, slowest.Stream)
	}
	_, err := fmt.Fprintln(w, summary)
	return err
}

// suites returns the results as JUnit suites, one for each policy.
func (m *faultMatrix) suites() []report.Suite {
	var all []report.Suite
	for _, r := range m.Rows {
		if len(all) == 0 || all[len(all)-1].Name != r.Policy {
			all = append(all, report.Suite{Name: r.Policy})
		}
		s := &all[len(all)-1]
		k := report.Case{Name: r.Stream + " " + r.Fault, Class: r.Policy, Seconds: time.Duration(r.Seconds).Seconds(), Output: "got " + r.Got}
		if !r.OK {
			k.Failure = r.Problem
			k.Output = "want " + r.Want + "\n" + k.Output
		}
		s.Cases = append(s.Cases, k)
	}
	return all
}

// A progress is a progress bar on a terminal.
type progress struct {
	w  io.Writer
	on bool
}

func (b *progress) show(done, all int, what string) {
	if b.on {
		const width = 30
		n := width * done / max(all, 1)
		fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %d/%d %s", strings.Repeat("=", n), strings.Repeat(" ", width-n), done, all, harmless(what))
	}
}

func (b *progress) clear() {
	if b.on {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
