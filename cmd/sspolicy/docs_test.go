package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the documentation shows of sspolicy in "console" blocks is what it does,
// in the folder of the fixtures.
func TestDocs(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("COLUMNS", "") // which has a say in how the help is laid out
	t.Chdir(t.TempDir())
	if err := os.CopyFS(".", os.DirFS(filepath.Join(root, "fixtures"))); err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, name := range []string{"README.md", "docs/guide.md", "docs/cli.md", "docs/formats.md"} {
		path := filepath.Join(root, filepath.FromSlash(name))
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := execute(t, name, string(text), &commands)
		switch {
		case got == string(text):
		case *update:
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s does not show what sspolicy does: run make update, and read what it changes\n%s", name, firstDifference(string(text), got))
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands were found", commands)
	}
}

// execute returns a page with the output of its commands as it is now.
func execute(t *testing.T, name, text string, commands *int) string {
	var out strings.Builder
	in, code := false, 0
	for line := range strings.Lines(text) {
		command, isCommand := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		switch {
		case !in:
			in = line == "```console\n"
		case line == "```\n":
			in = false
		case !isCommand:
			continue // old output
		}
		out.WriteString(line)
		if !in || !isCommand {
			continue
		}
		*commands++
		args := strings.Fields(command)
		switch {
		case command == "echo $?":
			fmt.Fprintf(&out, "%d\n", code)
		case args[0] == "sspolicy" && !strings.ContainsAny(command, `'"|<>&;`):
			var b bytes.Buffer
			code = run(args[1:], strings.NewReader(""), &b, &b)
			out.Write(b.Bytes())
			if b.Len() > 0 && !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
				out.WriteByte('\n')
			}
		default:
			t.Errorf("%s: can't execute %s", name, command)
		}
	}
	if in {
		t.Errorf("%s: a block is not closed", name)
	}
	return out.String()
}

func firstDifference(old, now string) string {
	a, b := strings.Split(old, "\n"), strings.Split(now, "\n")
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d: %s\n    now: %s", i+1, a[i], b[i])
		}
	}
	return "one is longer"
}

// docs/cli.md has the help of every command.
func TestDocsHaveEveryCommand(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	parser := newParser(io.Discard, io.Discard)
	want := []string{"$ sspolicy --help\n"}
	for _, n := range parser.Model.Children {
		if !n.Hidden {
			want = append(want, "$ sspolicy "+n.Name+" --help\n")
		}
	}
	for _, w := range want {
		if !strings.Contains(string(text), w) {
			t.Errorf("docs/cli.md does not show %q", w)
		}
	}
}
