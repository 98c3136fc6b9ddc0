package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// The JUnit format has a testsuite for each file, with a testcase for each diagnostic.
// A file without diagnostics has one passing testcase.
type junitReport struct {
	XMLName  xml.Name `xml:"testsuites"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Suites   []*junitSuite
}

type junitSuite struct {
	XMLName  xml.Name `xml:"testsuite"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Errors   int      `xml:"errors,attr"`
	Skipped  int      `xml:"skipped,attr"`
	Cases    []junitCase
}

type junitCase struct {
	XMLName   xml.Name      `xml:"testcase"`
	Name      string        `xml:"name,attr"`
	ClassName string        `xml:"classname,attr"`
	File      string        `xml:"file,attr,omitempty"`
	Time      string        `xml:"time,attr,omitempty"` // in seconds
	Line      int           `xml:"line,attr,omitempty"`
	Failure   *junitFailure `xml:"failure"`
	Output    string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// writeJUnit writes the report as JUnit XML. Diagnostics of level r.Fails are failures.
func writeJUnit(w io.Writer, r *Report) error {
	report := junitReport{Name: "sspolicy"}
	suites := map[string]*junitSuite{}
	for _, name := range r.files() {
		suites[name] = &junitSuite{Name: clean(r.path(name))}
		report.Suites = append(report.Suites, suites[name])
	}
	for _, d := range r.Diagnostics {
		suites[d.Span.Source.Name].add(d, r.Fails != nil && r.Fails(d))
	}
	for _, s := range report.Suites {
		if len(s.Cases) == 0 {
			s.Cases = append(s.Cases, junitCase{Name: "no findings", ClassName: s.Name, File: s.Name})
		}
	}
	return report.write(w)
}

// write writes the report and its totals.
func (r *junitReport) write(w io.Writer) error {
	for _, s := range r.Suites {
		s.Tests = len(s.Cases)
		r.Tests += s.Tests
		r.Failures += s.Failures
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(r); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// A Suite is a testsuite of JUnit.
type Suite struct {
	Name  string
	Cases []Case
}

// A Case is a testcase of JUnit.
type Case struct {
	Name, Class string
	Failure     string // "" means that it passed
	Output      string
	Seconds     float64
}

// WriteJUnit writes test suites as JUnit XML.
func WriteJUnit(w io.Writer, suites []Suite) error {
	report := junitReport{Name: "sspolicy"}
	for _, s := range suites {
		out := &junitSuite{Name: clean(s.Name)}
		for _, c := range s.Cases {
			k := junitCase{Name: clean(c.Name), ClassName: clean(c.Class), Time: fmt.Sprintf("%.3f", c.Seconds)}
			if c.Failure != "" {
				out.Failures++
				k.Failure = &junitFailure{clean(c.Failure), "failure", clean(c.Output)}
			} else {
				k.Output = clean(c.Output)
			}
			out.Cases = append(out.Cases, k)
		}
		report.Suites = append(report.Suites, out)
	}
	return report.write(w)
}

func (s *junitSuite) add(d schema.Diagnostic, failed bool) {
	at := d.Span.Position()
	c := junitCase{
		Name: clean(fmt.Sprintf("%s (%d:%d)", d.Rule, at.Line, at.Column)), ClassName: s.Name, File: s.Name, Line: at.Line,
	}
	text := fmt.Sprintf("%s: %s: %s [%s]", d.Span, d.Severity, d.Message, d.Rule)
	text = clean(strings.Join(append([]string{text}, notes(d)...), "\n"))
	if failed {
		s.Failures++
		c.Failure = &junitFailure{clean(d.Message), d.Severity.String(), text}
	} else {
		c.Output = text
	}
	s.Cases = append(s.Cases, c)
}
