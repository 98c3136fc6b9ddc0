// Package clidoc makes a man page and shell completions from a kong model.
package clidoc

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// commands returns the visible commands of a program or of a command.
func commands(parent *kong.Node) []*kong.Node {
	var list []*kong.Node
	for _, n := range parent.Children {
		if n.Type == kong.CommandNode && !n.Hidden {
			list = append(list, n)
		}
	}
	return list
}

// Man returns a page of section 1 in roff (man(7)).
func Man(app *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n", strings.ToUpper(app.Name), app.Name, roff(firstSentence(app.Help)))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n[flags] [arguments]\n", app.Name)
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n.SH COMMANDS\n", roff(app.Help))
	manCommands(&b, app.Node)
	return b.String()
}

// manCommands writes the sections of the commands of a node, recursively.
func manCommands(b *strings.Builder, parent *kong.Node) {
	for _, n := range commands(parent) {
		fmt.Fprintf(b, ".SS %s\n%s\n", roff(n.Summary()), roff(n.Help))
		if n.Detail != "" {
			fmt.Fprintf(b, ".PP\n%s\n", roff(n.Detail))
		}
		for _, a := range n.Positional {
			fmt.Fprintf(b, ".TP\n.I %s\n%s\n", roff(a.Summary()), roff(a.Help))
		}
		for _, f := range n.Flags {
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(f.String()), roff(f.Help))
		}
		manCommands(b, n)
	}
}

func firstSentence(s string) string {
	first, _, _ := strings.Cut(s, ".")
	return first
}

// roff escapes a text and keeps its line breaks.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(strings.TrimSpace(s))
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if l = strings.TrimSpace(l); l == "" {
			l = ".PP"
		} else if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			l = `\&` + l
		} else if i > 0 {
			l = ".br\n" + l
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n")
}
