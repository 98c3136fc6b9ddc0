package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/internal/report"
)

func TestColor(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		flag, noColor, forceColor, term string
		on, elsewhere                   bool // on a terminal, and in a file or pipe
	}{
		{"auto", "", "", "xterm-256color", true, false},
		{"auto", "", "", "", true, false},
		{"auto", "1", "", "xterm", false, false},
		{"auto", "0", "", "xterm", false, false},
		{"auto", "", "", "dumb", false, false},
		{"auto", "", "1", "dumb", true, true},
		{"auto", "", "3", "xterm", true, true},
		{"auto", "", "0", "xterm", false, false},
		{"auto", "", "false", "xterm", false, false},
		{"auto", "1", "1", "xterm", false, false},
		{"always", "", "", "xterm", true, true},
		{"always", "1", "0", "dumb", true, true},
		{"never", "", "1", "xterm", false, false},
	} {
		t.Setenv("NO_COLOR", test.noColor)
		t.Setenv("FORCE_COLOR", test.forceColor)
		t.Setenv("TERM", test.term)
		f := colorFlag{test.flag}
		if got := f.color(terminal); got != test.on {
			t.Errorf("%+v: %v on a terminal", test, got)
		}
		if got := f.color(file); got != test.elsewhere {
			t.Errorf("%+v: %v in a file", test, got)
		}
		if got := f.color(new(bytes.Buffer)); got != test.elsewhere {
			t.Errorf("%+v: %v elsewhere", test, got)
		}
	}
}

func TestPaintDiff(t *testing.T) {
	const plain = "diff a b\n--- a\n+++ b\n@@ -1 +1 @@\n same\n--- x\n+++ y\n+"
	const want = "\x1b[1mdiff a b\x1b[0m\n\x1b[1m--- a\x1b[0m\n\x1b[1m+++ b\x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n same\n" +
		"\x1b[31m--- x\x1b[0m\n\x1b[32m+++ y\x1b[0m\n\x1b[32m+\x1b[0m"
	if got := string(paintDiff([]byte(plain))); got != want {
		t.Errorf("got %q", got)
	}
}

func TestHelpNamesFormats(t *testing.T) {
	var out bytes.Buffer
	run([]string{"lint", "--help"}, nil, &out, &out)
	help := strings.Join(strings.Fields(out.String()), " ")
	for _, f := range report.Formats() {
		if !strings.Contains(help, " "+string(f)+" ") && !strings.Contains(help, " "+string(f)+",") && !strings.Contains(help, " "+string(f)+";") {
			t.Errorf("the help does not name the format %s", f)
		}
	}
}
