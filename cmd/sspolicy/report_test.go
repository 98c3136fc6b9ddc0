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
		flag, noColor, term string
		on, elsewhere       bool // on a terminal, and to a file or pipe
	}{
		{"auto", "", "xterm-256color", true, false},
		{"auto", "", "", true, false},
		{"auto", "1", "xterm", false, false},
		{"auto", "0", "xterm", false, false},
		{"auto", "", "dumb", false, false},
		{"always", "", "xterm", true, true},
		{"always", "1", "dumb", true, true}, // what is asked for goes before what is preferred
		{"never", "", "xterm", false, false},
	} {
		t.Setenv("NO_COLOR", test.noColor)
		t.Setenv("TERM", test.term)
		f := reportFlags{Color: test.flag}
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
