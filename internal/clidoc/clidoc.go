// Package clidoc makes the man page and the shell completions of a command line that
// kong parses.
package clidoc

import (
	"fmt"
	"sort"
	"strings"

	"github.com/alecthomas/kong"
)

// commands returns the visible commands.
func commands(app *kong.Application) []*kong.Node {
	var list []*kong.Node
	for _, n := range app.Children {
		if n.Type == kong.CommandNode && !n.Hidden {
			list = append(list, n)
		}
	}
	return list
}

// flags returns the flags of a command with their dashes.
func flags(n *kong.Node) []string {
	var list []string
	for _, f := range n.Flags {
		if f.Hidden {
			continue
		}
		if list = append(list, "--"+f.Name); f.Short != 0 {
			list = append(list, "-"+string(f.Short))
		}
	}
	sort.Strings(list)
	return list
}

// Words are the values of flags and arguments, by their tag "complete".
type Words map[string][]string

// of returns the values of a flag or argument; nil for any.
func (w Words) of(v *kong.Value) []string {
	if v.Enum != "" {
		return strings.FieldsFunc(v.Enum, func(r rune) bool { return r == ',' })
	}
	return w[v.Tag.Get("complete")]
}

// arguments returns the values of the first argument of a command; nil for a file.
func (w Words) arguments(n *kong.Node) []string {
	if len(n.Positional) == 0 {
		return nil
	}
	return w.of(n.Positional[0])
}

// Bash returns a completion script for bash.
func Bash(app *kong.Application, w Words) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# bash completion for %s\n_%[1]s() {\n", app.Name)
	b.WriteString("  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n")
	b.WriteString("  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W \"")
	var names []string
	for _, n := range commands(app) {
		names = append(names, n.Name)
	}
	fmt.Fprintf(&b, "%s --help\" -- \"$cur\"))\n    return\n  fi\n", strings.Join(names, " "))
	b.WriteString("  case ${COMP_WORDS[1]} in\n")
	for _, n := range commands(app) {
		fmt.Fprintf(&b, "  %s)\n", n.Name)
		for _, f := range n.Flags {
			if v := w.of(f.Value); len(v) > 0 {
				fmt.Fprintf(&b, "    [ \"$prev\" = --%s ] && { COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return; }\n", f.Name, strings.Join(v, " "))
			}
		}
		fmt.Fprintf(&b, "    [[ $cur == -* ]] && { COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return; }\n", strings.Join(flags(n), " "))
		if v := w.arguments(n); len(v) > 0 {
			fmt.Fprintf(&b, "    COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return\n", strings.Join(v, " "))
		}
		b.WriteString("    ;;\n")
	}
	fmt.Fprintf(&b, "  esac\n  COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -o filenames -F _%[1]s %[1]s\n", app.Name)
	return b.String()
}

// Zsh returns a completion script for zsh.
func Zsh(app *kong.Application, w Words) string {
	quote := strings.NewReplacer("'", "", "[", "(", "]", ")", ":", "\\:")
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %[1]s\n_%[1]s() {\n  local -a commands\n  commands=(\n", app.Name)
	for _, n := range commands(app) {
		fmt.Fprintf(&b, "    '%s:%s'\n", n.Name, quote.Replace(n.Help))
	}
	b.WriteString("  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n  case $words[2] in\n")
	for _, n := range commands(app) {
		fmt.Fprintf(&b, "  %s)\n    _arguments", n.Name)
		for _, f := range n.Flags {
			value := ""
			switch v := w.of(f.Value); {
			case len(v) > 0:
				value = fmt.Sprintf(":value:(%s)", strings.Join(v, " "))
			case !f.IsBool():
				value = ":value:_files"
			}
			fmt.Fprintf(&b, " \\\n      '--%s[%s]%s'", f.Name, quote.Replace(f.Help), value)
		}
		argument := "file:_files"
		if v := w.arguments(n); len(v) > 0 {
			argument = fmt.Sprintf("value:(%s)", strings.Join(v, " "))
		}
		fmt.Fprintf(&b, " \\\n      '*:%s'\n    ;;\n", argument)
	}
	fmt.Fprintf(&b, "  esac\n}\ncompdef _%[1]s %[1]s\n", app.Name)
	return b.String()
}

// Fish returns a completion script for fish.
func Fish(app *kong.Application, w Words) string {
	quote := strings.NewReplacer("\\", "\\\\", "'", "\\'")
	var b strings.Builder
	for _, n := range commands(app) {
		fmt.Fprintf(&b, "complete -c %s -f -n __fish_use_subcommand -a %s -d '%s'\n", app.Name, n.Name, quote.Replace(n.Help))
	}
	for _, n := range commands(app) {
		if v := w.arguments(n); len(v) > 0 {
			fmt.Fprintf(&b, "complete -c %s -f -n '__fish_seen_subcommand_from %s' -a '%s'\n", app.Name, n.Name, strings.Join(v, " "))
		}
		for _, f := range n.Flags {
			fmt.Fprintf(&b, "complete -c %s -n '__fish_seen_subcommand_from %s' -l %s -d '%s'", app.Name, n.Name, f.Name, quote.Replace(f.Help))
			if f.Short != 0 {
				fmt.Fprintf(&b, " -s %c", f.Short)
			}
			if v := w.of(f.Value); len(v) > 0 {
				fmt.Fprintf(&b, " -x -a '%s'", strings.Join(v, " "))
			} else if !f.IsBool() {
				b.WriteString(" -r")
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// Man returns a page of section 1 in roff (man(7)).
func Man(app *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n", strings.ToUpper(app.Name), app.Name, roff(firstSentence(app.Help)))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n[flags] [arguments]\n", app.Name)
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n.SH COMMANDS\n", roff(app.Help))
	for _, n := range commands(app) {
		fmt.Fprintf(&b, ".SS %s\n%s\n", roff(n.Summary()), roff(n.Help))
		if n.Detail != "" {
			fmt.Fprintf(&b, ".PP\n%s\n", roff(n.Detail))
		}
		for _, a := range n.Positional {
			fmt.Fprintf(&b, ".TP\n.I %s\n%s\n", roff(a.Summary()), roff(a.Help))
		}
		for _, f := range n.Flags {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(f.String()), roff(f.Help))
		}
	}
	return b.String()
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
