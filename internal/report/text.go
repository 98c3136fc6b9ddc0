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

// writeText writes each diagnostic as file:line:col: severity: message [rule],
// with the line of the source and a mark under its span. Related places and fixes
// follow.
func writeText(w io.Writer, r *Report, color bool) error {
	t := &textWriter{bufio.NewWriter(w), color}
	for _, d := range r.Diagnostics {
		style := severityStyles[d.Severity]
		fmt.Fprintf(t, "%s %s %s %s\n",
			t.paint(styleStrong, inline(d.Span.String())+":"), t.paint(style, d.Severity.String()+":"),
			inline(d.Message), t.paint(styleFaint, "["+inline(d.Rule)+"]"))
		shown := t.excerpt(d.Span, style)
		for _, r := range d.Related {
			fmt.Fprintf(t, "  %s %s %s\n",
				t.paint(styleStrong, inline(r.Span.String())+":"), t.paint(styleNote, "note:"), inline(r.Message))
			if !shown.holds(r.Span) {
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

// The styles of a terminal, as parameters of their escape sequence.
const (
	styleStrong = "1"
	styleFaint  = "2"
	styleNote   = "1;36"
	styleFix    = "1;32"
)

var severityStyles = [...]string{schema.Info: styleNote, schema.Warning: "1;33", schema.Error: "1;31"}

// A textWriter keeps the first error, for Flush to return.
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

// margin is how many characters of a long line are shown on either side of
// where a span starts. Policies are often one line of thousands.
const margin = 60

// A window is the part of a source that an excerpt shows.
type window schema.Span

func (w window) holds(s schema.Span) bool {
	return s.Source == w.Source && w.Start <= s.Start && s.Start <= w.End
}

// excerpt writes the line that a span starts on, or the part near the span if the
// line is long, and marks the span.
func (t *textWriter) excerpt(s schema.Span, style string) window {
	s = clamp(s)
	line, start := s.Source.Line(s.Start)
	from := min(s.Start-start, len(line))
	to := max(from, min(s.End-start, len(line)))

	before := last(line[:from], margin)
	marked := first(line[from:to], margin)
	after := first(line[to:], max(0, margin-utf8.RuneCountInString(line[from:from+len(marked)])))
	lead, trail := "", ""
	if len(before) < from {
		lead = "…"
	}
	if from+len(marked) < to {
		after = ""
	}
	if from+len(marked)+len(after) < len(line) {
		trail = "…"
	}
	shown := window{s.Source, start + from - len(before), start + from + len(marked) + len(after)}

	before, marked, after = printable(before), printable(marked), printable(after)
	number := fmt.Sprintf("%5d |", s.Position().Line)
	gap := strings.Repeat(" ", width(lead+before))
	mark := "^" + strings.Repeat("~", max(0, width(marked)-1))
	fmt.Fprintf(t, "%s %s%s%s%s%s\n", t.paint(styleFaint, number), lead, before, marked, after, trail)
	fmt.Fprintf(t, "%s %s%s\n", t.paint(styleFaint, strings.Repeat(" ", len(number)-1)+"|"), gap, t.paint(style, mark))
	return shown
}

// first returns the first n characters of a text, or all if there are fewer.
func first(s string, n int) string {
	end := 0
	for ; n > 0 && end < len(s); n-- {
		_, size := utf8.DecodeRuneInString(s[end:])
		end += size
	}
	return s[:end]
}

// last returns the last n characters of a text, or all if there are fewer.
func last(s string, n int) string {
	start := len(s)
	for ; n > 0 && start > 0; n-- {
		_, size := utf8.DecodeLastRuneInString(s[:start])
		start -= size
	}
	return s[start:]
}

// width returns how many cells of a terminal a text takes. It does not depend
// on the locale.
func width(s string) int {
	narrow := runewidth.Condition{StrictEmojiNeutral: true}
	return narrow.StringWidth(s)
}

// printable replaces characters that would move the cursor or the text around it by
// spaces.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// inline escapes the characters of a name or message that cannot be printed, as in a
// Go string.
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
