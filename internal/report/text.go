package report

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"

	"github.com/secure-streams/sspolicy/schema"
)

// writeText writes each diagnostic as file:line:col: severity: message [rule], with the
// source line and the span underlined. Related positions and fixes follow.
func writeText(w io.Writer, r *Report, color bool) error {
	t := &textWriter{bufio.NewWriter(w), color}
	for _, d := range r.Diagnostics {
		style := severityStyles[d.Severity]
		fmt.Fprintf(t, "%s %s %s %s\n",
			t.paint(styleStrong, inline(d.Span.String())+":"), t.paint(style, d.Severity.String()+":"),
			inline(d.Message), t.paint(styleFaint, "["+inline(d.Rule)+"]"))
		excerpt := t.excerpt(d.Span, style)
		for i, r := range d.Related {
			if i == maxNotes {
				fmt.Fprintf(t, "  %s %d more; --format json has all\n", t.paint(styleNote, "note:"), len(d.Related)-i)
				break
			}
			fmt.Fprintf(t, "  %s %s %s\n",
				t.paint(styleStrong, inline(r.Span.String())+":"), t.paint(styleNote, "note:"), inline(r.Message))
			if !excerpt.contains(r.Span) {
				t.excerpt(r.Span, styleNote)
			}
		}
		for _, f := range d.Fixes {
			label := "fix:"
			if !f.Safe {
				label = "unsafe fix:"
			}
			fmt.Fprintf(t, "  %s %s\n", t.paint(styleFix, label), inline(f.Message))
		}
	}
	return t.Flush()
}

// maxNotes is how many related positions of a diagnostic are shown.
const maxNotes = 8

// The styles, as parameters of the terminal's escape sequence.
const (
	styleStrong = "1"
	styleFaint  = "2"
	styleNote   = "1;36"
	styleFix    = "1;32"
)

var severityStyles = [...]string{schema.Info: styleNote, schema.Warning: "1;33", schema.Error: "1;31"}

// A textWriter writes text. Flush returns its first error.
type textWriter struct {
	*bufio.Writer
	color bool
}

// paint returns text in a style.
func (t *textWriter) paint(style, text string) string {
	if !t.color || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// margin is the number of characters of a long line that are shown on either side of
// the start of a span. Some policies are one line of thousands of characters.
const margin = 60

// An Excerpt is the part of a line that shows a span, in printable characters. A line
// that is cut has "…" where it is.
type Excerpt struct {
	Line                  int // its number
	Before, Marked, After string
	shown                 schema.Span
}

// NewExcerpt returns the first line of a span. Of a long line it returns only the part
// around the span.
func NewExcerpt(s schema.Span) Excerpt {
	s = clamp(s)
	line, start := s.Source.Line(s.Start)
	from := min(s.Start-start, len(line))
	to := max(from, min(s.End-start, len(line)))

	before := last(line[:from], margin)
	middle := first(line[from:to], margin)
	after := first(line[to:], max(0, margin-utf8.RuneCountInString(line[from:from+len(middle)])))
	lead, trail := "", ""
	if len(before) < from {
		lead = "…"
	}
	if from+len(middle) < to {
		after = ""
	}
	if from+len(middle)+len(after) < len(line) {
		trail = "…"
	}
	shown := schema.Span{Source: s.Source, Start: start + from - len(before), End: start + from + len(middle) + len(after)}
	return Excerpt{s.Position().Line, lead + printable(before), printable(middle), printable(after) + trail, shown}
}

func (e Excerpt) contains(s schema.Span) bool {
	return s.Source == e.shown.Source && e.shown.Start <= s.Start && s.Start <= e.shown.End
}

// excerpt writes the excerpt of a span with the span underlined.
func (t *textWriter) excerpt(s schema.Span, style string) Excerpt {
	e := NewExcerpt(s)
	number := fmt.Sprintf("%5d |", e.Line)
	gap := strings.Repeat(" ", width(e.Before))
	mark := "^" + strings.Repeat("~", max(0, width(e.Marked)-1))
	fmt.Fprintf(t, "%s %s%s%s\n", t.paint(styleFaint, number), e.Before, e.Marked, e.After)
	fmt.Fprintf(t, "%s %s%s\n", t.paint(styleFaint, strings.Repeat(" ", len(number)-1)+"|"), gap, t.paint(style, mark))
	return e
}

// first returns at most the first n characters of a text.
func first(s string, n int) string {
	end := 0
	for ; n > 0 && end < len(s); n-- {
		_, size := utf8.DecodeRuneInString(s[end:])
		end += size
	}
	return s[:end]
}

// last returns at most the last n characters of a text.
func last(s string, n int) string {
	start := len(s)
	for ; n > 0 && start > 0; n-- {
		_, size := utf8.DecodeLastRuneInString(s[:start])
		start -= size
	}
	return s[start:]
}

// width returns the width of a text in terminal cells, independent of the locale.
func width(s string) int {
	narrow := runewidth.Condition{StrictEmojiNeutral: true}
	return narrow.StringWidth(s)
}

// printable replaces unprintable characters by spaces.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// inline returns a name or message for one line: it escapes unprintable characters as
// in a Go string.
func inline(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
