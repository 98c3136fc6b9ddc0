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

// TestDocs checks that the documentation shows the output of the commands, and that its
// other commands work. It executes those of README.md in the root of the repository, those
// of the other pages in fixtures.
func TestDocs(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("COLUMNS", "") // affects the layout of the help
	dir := t.TempDir()
	fixtures := filepath.Join(dir, "fixtures")
	if err := os.CopyFS(fixtures, os.DirFS(filepath.Join(root, "fixtures"))); err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, page := range []struct{ name, dir string }{
		{"README.md", dir}, {"docs/guide.md", fixtures}, {"docs/codegen.md", fixtures}, {"docs/overlays.md", fixtures}, {"docs/cli.md", fixtures},
		{"docs/formats.md", fixtures}, {"docs/signing.md", fixtures}, {"docs/lint.md", fixtures}, {"docs/faults.md", fixtures}, {"docs/see.md", fixtures},
		{"docs/storm.md", fixtures},
		{"docs/certs.md", fixtures},
		{"docs/custom-rules.md", fixtures}, {"docs/testing.md", fixtures},
	} {
		t.Run(page.name, func(t *testing.T) {
			t.Chdir(page.dir)
			path := filepath.Join(root, filepath.FromSlash(page.name))
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := execute(t, page.name, string(text), &commands)
			switch {
			case got == string(text) || t.Failed():
			case *update:
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s does not show what sspolicy does: run make update, and read what it changes\n%s", page.name, firstDifference(string(text), got))
			}
		})
	}
	if commands < 30 {
		t.Errorf("only %d commands were found", commands)
	}
}

// execute returns a page with the current output of the commands in its console blocks. It
// also executes indented commands.
func execute(t *testing.T, name, text string, commands *int) string {
	var out strings.Builder
	in, code := false, 0
	for line := range strings.Lines(text) {
		command, isCommand := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		switch {
		case !in && strings.HasPrefix(line, "    ") && !isCommand:
			if executeIndented(t, name, strings.TrimSpace(line)) {
				*commands++
			}
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
			if code = run(args[1:], strings.NewReader(""), &b, &b); code == exitStream {
				t.Errorf("%s: the page would show a failure:\n%s\n%s", name, line, &b)
			}
			out.Write(b.Bytes())
			if b.Len() > 0 && !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
				out.WriteByte('\n')
			}
		default:
			t.Errorf("%s: cannot execute %s", name, command)
		}
	}
	if in {
		t.Errorf("%s: a block is not closed", name)
	}
	return out.String()
}

// executeIndented executes a command of a page that shows no output, and reports whether it
// did. It skips commands that need a shell or a network.
func executeIndented(t *testing.T, name, command string) bool {
	args := strings.Fields(command)
	switch {
	case strings.HasPrefix(command, "mkdir -p "):
		if err := os.MkdirAll(args[2], 0o777); err != nil {
			t.Fatal(err)
		}
		return true
	case !strings.HasPrefix(command, "sspolicy ") || args[1] == "run" || strings.HasPrefix(command, "sspolicy fault serve") || strings.ContainsAny(command, `'"|<>&;*`) || strings.ToUpper(args[len(args)-1]) == args[len(args)-1]:
		return false
	}
	var b bytes.Buffer
	if code := run(args[1:], strings.NewReader(""), &b, &b); code != exitOK {
		t.Errorf("%s: %s: exit code %d: %s", name, command, code, b.String())
	}
	return true
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

// TestDocsHaveEveryCommand checks that docs/cli.md has the help of every command.
func TestDocsHaveEveryCommand(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"$ sspolicy --help\n"}
	for _, n := range newParser(io.Discard, io.Discard).Model.Children {
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
