package codegen

import (
	"os"
	"strings"
	"testing"
)

// TestNotC checks that files that are not C are identified, and that tables are not.
// FuzzReadC and the tests that read the output of compilers check the other direction.
func TestNotC(t *testing.T) {
	for text, want := range map[string]string{
		"\x7fELF\x02":                          "an ELF file",
		"!<arch>\nx":                           "a library",
		"MZ\x90\x00":                           "a program for Windows",
		"a\x00b":                               "binary",
		" // c\n{\"s\": []}":                   "JSON",
		"{ # comment\n":                        "JSON",
		"<?xml version=\"1.0\"?>":              "HTML or XML",
		"":                                     "empty",
		"/* only */":                           "empty",
		"# sspolicy\n\nlws_ss_policy_t":        `not C: "# sspolicy" is not a preprocessing directive`,
		"#!/bin/sh\nlws_ss_policy":             `not C: "#!/bin/sh`,
		"int main(void) { return 0; }":         "without tables",
		"the table `lws_ss_policy_t` is":       "not C: it has a \"`\"",
		"#include \"policy.h\"\n":              "",
		"static const lws_ss_policy_t p = {};": "",
		"#error don't `use` this @all\n#include <a.h>\nchar c = '\"', *s = \"`\\\"@\";\n": "",
		"struct lws_ss_policy p = {};":                 "",
		"%: include <a.h>\n":                           "",
		"#define A(x) \\\n  #x\n#\n#include \"a.h\"\n": "",
	} {
		got := notC([]byte(text))
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err == nil && !strings.HasPrefix(notC(exe), "an ELF file") {
		t.Errorf("the test: %q", notC(exe))
	}
}

// TestNotCLong checks that the time for comments without an end is linear: quadratic time
// would exceed that of all tests.
func TestNotCLong(t *testing.T) {
	if got := notC([]byte("lws_ss_policy_t p;\n#define A " + strings.Repeat(`/* "a" `, 100_000))); got != "" {
		t.Error(got)
	}
}
