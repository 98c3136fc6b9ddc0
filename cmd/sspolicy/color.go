package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/rogpeppe/go-internal/diff"
	"golang.org/x/term"
)

// colorFlag selects when to use colors.
type colorFlag struct {
	Color string `enum:"auto,always,never" default:"auto" help:"Colour text and diffs on standard output: auto, always or never (${default}). auto colours on a terminal, and follows NO_COLOR and FORCE_COLOR."`
}

// color reports whether to color text written to w. The flag takes precedence over
// NO_COLOR, that over FORCE_COLOR, and that over the kind of w.
func (f *colorFlag) color(w io.Writer) bool {
	if f.Color != "auto" {
		return f.Color == "always"
	}
	if os.Getenv("NO_COLOR") != "" {
		return false
	}
	switch os.Getenv("FORCE_COLOR") {
	case "":
		return os.Getenv("TERM") != "dumb" && isTerminal(w)
	case "0", "false":
		return false
	}
	return true
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// diff writes the differences between two texts, to a file or, colored, to standard
// output.
func (f *colorFlag) diff(p *program, file, name, text, otherName, other string) error {
	changes := diff.Diff(harmless(name), []byte(text), otherName, []byte(other))
	if file == "" && f.color(p.stdout) {
		changes = paintDiff(changes)
	}
	return p.output(file, write(string(changes)))
}

// paintDiff colors a unified diff like Git.
func paintDiff(text []byte) []byte {
	var b bytes.Buffer
	header := true
	for line := range bytes.Lines(text) {
		header = header && line[0] != '@'
		style := ""
		switch {
		case header:
			style = "1"
		case line[0] == '@':
			style = "36"
		case line[0] == '-':
			style = "31"
		case line[0] == '+':
			style = "32"
		}
		plain := bytes.TrimSuffix(line, []byte("\n"))
		if style == "" {
			b.Write(plain)
		} else {
			fmt.Fprintf(&b, "\x1b[%sm%s\x1b[0m", style, plain)
		}
		b.Write(line[len(plain):])
	}
	return b.Bytes()
}
