package clidoc

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// CompleteCommand is the first argument with which completion scripts call the
// program. The other arguments are the words of the command line up to the cursor.
// The last one is prefixed with ":", since some shells drop empty arguments.
const CompleteCommand = "__complete"

// files is the line that asks the shell to complete file names.
const files = ":files"

// Values are functions that return the values of a flag or an argument, by its
// tag "complete". They are called with the arguments before it.
type Values map[string]func(args []string) []string

// Complete writes the completions of a command line, for the arguments after
// CompleteCommand: one per line, followed by a tab and a description if there is
// one.
func Complete(w io.Writer, app *kong.Application, values Values, words []string) error {
	if len(words) == 0 {
		return nil
	}
	words = joinFlags(words)
	last := len(words) - 1
	c := &completer{values: values, current: words[last]}
	c.command(app.Node, words[:last])
	var b strings.Builder
	for _, line := range c.lines {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// joinFlags joins the parts of --flag=value, which bash splits at "=", and removes
// the ":" from the last word.
func joinFlags(words []string) []string {
	var joined []string
	open := false // the last word ends with the "=" of a flag
	for i, word := range words {
		if i == len(words)-1 {
			word = strings.TrimPrefix(word, ":")
		}
		n := len(joined) - 1
		switch {
		case word == "=" && n >= 0 && strings.HasPrefix(joined[n], "--"):
			joined[n] += "="
			open = true
		case open:
			joined[n] += word
			open = false
		default:
			joined = append(joined, word)
		}
	}
	return joined
}

type completer struct {
	values  Values
	current string
	lines   []string
}

// add adds a completion if it matches the current word.
func (c *completer) add(text, help string) {
	if !strings.HasPrefix(text, c.current) || strings.ContainsAny(text, "\t\n") {
		return
	}
	if help != "" {
		text += "\t" + help
	}
	c.lines = append(c.lines, text)
}

// command completes the command line of a program, or of a command with commands of its
// own, after some words.
func (c *completer) command(parent *kong.Node, words []string) {
	if len(words) == 0 {
		for _, n := range commands(parent) {
			c.add(n.Name, firstSentence(n.Help))
		}
		c.add("--help", "")
		if parent.Type == kong.ApplicationNode {
			c.add("--version", "")
		}
		return
	}
	for _, n := range commands(parent) {
		switch {
		case n.Name != words[0]:
		case len(n.Children) > 0:
			c.command(n, words[1:])
		default:
			c.arguments(n, words[1:])
		}
	}
}

// arguments completes the command line of a command after some words.
func (c *completer) arguments(n *kong.Node, words []string) {
	var args []string
	var pending *kong.Flag // whose value is the next word
	for _, word := range words {
		switch {
		case pending != nil:
			pending = nil
		case len(word) > 1 && word[0] == '-':
			name, _, ok := strings.Cut(word, "=")
			if f := flag(n, name); f != nil && !ok && !f.IsBool() {
				pending = f
			}
		default:
			args = append(args, word)
		}
	}
	name, _, hasValue := strings.Cut(c.current, "=")
	switch {
	case pending != nil:
		c.value(pending.Value, "", args)
	case strings.HasPrefix(c.current, "--") && hasValue:
		if f := flag(n, name); f != nil {
			c.value(f.Value, name+"=", args)
		}
	case strings.HasPrefix(c.current, "-"):
		for _, f := range visible(n) {
			c.add("--"+f.Name, firstSentence(f.Help))
			if f.Short != 0 {
				c.add("-"+string(f.Short), firstSentence(f.Help))
			}
		}
	case len(n.Positional) > 0:
		c.value(n.Positional[min(len(args), len(n.Positional)-1)], "", args)
	}
}

// value completes the value of a flag or an argument, after a prefix.
func (c *completer) value(v *kong.Value, prefix string, args []string) {
	var list []string
	switch values := c.values[v.Tag.Get("complete")]; {
	case v.Enum != "":
		list = strings.Split(v.Enum, ",")
	case values != nil:
		list = values(args)
	case isText(v.Target.Type()):
		c.lines = append(c.lines, files)
		return
	}
	if v.IsSlice() && v.Tag.Sep == ',' {
		if i := strings.LastIndexByte(c.current[len(prefix):], ','); i >= 0 {
			prefix = c.current[:len(prefix)+i+1]
		}
	}
	for _, text := range slices.Compact(list) {
		if text != "" {
			c.add(prefix+text, "")
		}
	}
}

// isText reports whether a type is a string, or a pointer to or a list of strings.
func isText(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t.Kind() == reflect.String
}

// flag returns the flag that a word such as --output or -o names, or nil.
func flag(n *kong.Node, word string) *kong.Flag {
	for _, f := range visible(n) {
		if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
			return f
		}
	}
	return nil
}

// visible returns the flags of a command, sorted by name.
func visible(n *kong.Node) []*kong.Flag {
	list := slices.DeleteFunc(slices.Clone(n.Flags), func(f *kong.Flag) bool { return f.Hidden })
	slices.SortFunc(list, func(a, b *kong.Flag) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Script returns the completion script for a shell: it calls the program with
// CompleteCommand.
func Script(shell, program string) (string, error) {
	script, ok := scripts[shell]
	if !ok {
		return "", fmt.Errorf("unknown shell %q", shell)
	}
	return strings.NewReplacer("PROGRAM", program, "COMPLETE", CompleteCommand).Replace(script), nil
}

var scripts = map[string]string{
	"bash": `# bash completion for PROGRAM
_PROGRAM() {
  local line text words=("${COMP_WORDS[@]:1:COMP_CWORD}") cur=${COMP_WORDS[COMP_CWORD]#=}
  words=("${words[@]//\\/}")
  local last=$((${#words[@]} - 1))
  words[last]=:${words[last]}
  COMPREPLY=()
  while IFS= read -r line; do
    if [ "$line" = :files ]; then
      compopt -o filenames 2>/dev/null
      while IFS= read -r text; do COMPREPLY+=("$text"); done < <(compgen -f -- "$cur")
    else
      text=${line%%$'\t'*}
      # bash completes after the "=" of a flag.
      [[ $text == --*=* ]] && text=${text#*=}
      printf -v text %q "$text"
      COMPREPLY+=("$text")
    fi
  done < <(PROGRAM COMPLETE "${words[@]}" 2>/dev/null)
}
complete -F _PROGRAM PROGRAM
`,
	"zsh": `#compdef PROGRAM
_PROGRAM() {
  local line text help ask=0
  local -a completions given
  given=("${(@Q)words[2,CURRENT]}")
  given[-1]=":${given[-1]}"
  for line in "${(@f)$(PROGRAM COMPLETE "${given[@]}" 2>/dev/null)}"; do
    if [[ $line == :files ]]; then
      ask=1
    elif [[ -n $line ]]; then
      text=${line%%$'\t'*} help=${line#$text}
      completions+=("${text//:/\\:}${help:+:${help#$'\t'}}")
    fi
  done
  (( $#completions )) && _describe -t values completion completions
  (( ask )) && _files
  return 0
}
if [[ $funcstack[1] == _PROGRAM ]]; then
  _PROGRAM "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
  compdef _PROGRAM PROGRAM
fi
`,
	"fish": `function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l current (string unescape -- (commandline -ct))
    for line in (PROGRAM COMPLETE $words[2..-1] ":$current" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
`,
	"powershell": `Register-ArgumentCompleter -Native -CommandName PROGRAM -ScriptBlock {
    param($word, $ast, $position)
    $words = @($ast.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $position } | ForEach-Object { "$_".Trim("'", '"') })
    # Without a result, PowerShell completes file names.
    & PROGRAM COMPLETE @words ":$word" 2>$null | Where-Object { $_ -ne ':files' } | ForEach-Object {
        $text, $help = $_ -split "` + "`t" + `", 2
        $quoted = if ($text -match '[^\w.,=/-]') { "'" + $text.Replace("'", "''") + "'" } else { $text }
        if (-not $help) { $help = $text }
        [System.Management.Automation.CompletionResult]::new($quoted, $text, 'ParameterValue', $help)
    }
}
`,
}
