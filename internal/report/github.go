package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

var githubCommands = [...]string{schema.Info: "notice", schema.Warning: "warning", schema.Error: "error"}

// writeGitHub writes each diagnostic as a workflow command, which GitHub Actions shows
// as an annotation of the file.
func writeGitHub(w io.Writer, r *Report) error {
	b := bufio.NewWriter(w)
	for _, d := range r.Diagnostics {
		s := clamp(d.Span)
		start, end := s.Position(), s.Source.Position(s.End)
		message := strings.Join(append([]string{d.Message}, notes(d)...), "\n")
		fmt.Fprintf(b, "::%s ", githubCommands[d.Severity])
		if s.Source.Name == stdin {
			message = s.String() + ": " + message // no file to annotate
		} else {
			fmt.Fprintf(b, "file=%s,line=%d,endLine=%d,", githubProperty(r.path(s.Source.Name)), start.Line, end.Line)
			if start.Line == end.Line { // the runner drops columns otherwise
				fmt.Fprintf(b, "col=%d,endColumn=%d,", start.Column, end.Column)
			}
		}
		fmt.Fprintf(b, "title=%s::%s\n", githubProperty(d.Rule), githubData(message))
	}
	return b.Flush()
}

// The escapes of the message and of property values in a workflow command.
var (
	githubDataEscapes     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubPropertyEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func githubData(s string) string { return githubDataEscapes.Replace(clean(s)) }

func githubProperty(s string) string { return githubPropertyEscapes.Replace(clean(s)) }
