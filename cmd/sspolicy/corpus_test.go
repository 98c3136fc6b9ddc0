package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCorpus checks that each command succeeds on any policy or reports an error.
// SSPOLICY_CORPUS is a folder with folders of policies.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("SSPOLICY_CORPUS")
	if dir == "" {
		t.Skip("SSPOLICY_CORPUS is not set")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("there are no policies in the folders of %s", dir)
	}
	codes := map[string]map[int]int{}
	for _, file := range files {
		name, err := filepath.Rel(dir, file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			found := map[string]int{}
			for _, args := range [][]string{
				{"validate"}, {"lint"}, {"lint", "--lws", "4.1,4.3,5.0", "--format", "json"},
				{"compile", "--lang", "go"}, {"compile", "--lang", "c"},
			} {
				command := strings.Join(args, " ")
				var stdout, stderr bytes.Buffer
				code := run(append(args, file), strings.NewReader(""), &stdout, &stderr)
				found[command] = code
				if codes[command] == nil {
					codes[command] = map[int]int{}
				}
				codes[command][code]++
				out := stdout.String() + stderr.String()
				switch {
				case code != exitOK && code != exitFindings:
					t.Errorf("%s: exit code %d: %s", command, code, out)
				case code == exitFindings && !strings.Contains(out, filepath.Base(file)):
					t.Errorf("%s: fails without naming the file: %q", command, out)
				case code == exitFindings && args[0] == "compile" && stdout.Len() > 0:
					t.Errorf("%s: fails, but writes something", command)
				case code == exitOK && args[0] == "compile" && stdout.Len() == 0:
					t.Errorf("%s: writes nothing", command)
				}
			}
			if found["validate"] > found["lint"] {
				t.Error("validate finds something that lint does not")
			}
			if found["lint"] == exitOK && found["compile --lang go"] != exitOK {
				t.Error("lint finds nothing, but compile does")
			}
		})
	}
	for command, n := range codes {
		t.Logf("%s: %d policies pass, %d are refused", command, n[exitOK], n[exitFindings])
	}
}
