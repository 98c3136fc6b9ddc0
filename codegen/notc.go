package codegen

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// otherFiles lists kinds of files that are not C, by their first bytes.
var otherFiles = []struct{ magic, kind string }{
	{"\x7fELF", "an ELF file, which --elf reads"},
	{"!<arch>\n", "a library of object files: extract them with ar x, and give one to --elf"},
	{"MZ", "a program for Windows: only ELF files can be read, with --elf"},
	{"\xcf\xfa\xed\xfe", "a program for macOS: only ELF files can be read, with --elf"},
	{"\xca\xfe\xba\xbe", "a program for macOS: only ELF files can be read, with --elf"},
	{"\x1f\x8b", "compressed"},
	{"PK\x03\x04", "an archive"},
}

var (
	// cComment matches a comment, or a string or character literal, which contains
	// no comment. A comment without an end reaches to that of the file: otherwise each
	// match behind its start would search it for the end again.
	cComment = regexp.MustCompile(`//[^\n]*|/\*(?s:.*?)(?:\*/|\z)|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'`)

	cContinued = regexp.MustCompile(`\\\r?\n`)
	cDirective = regexp.MustCompile(`(?m)^[ \t]*(?:#|%:)[ \t]*(\w+|\S*).*$`)
	cTables    = regexp.MustCompile(`lws_ss_policy|(?:#|%:)[ \t]*include`)
	cKnown     = regexp.MustCompile(`^(include|include_next|define|undef|if|ifdef|ifndef|elif|elifdef|elifndef|else|endif|error|warning|pragma|line|ident|embed|[0-9]+|)$`)
)

// notC returns the kind of a file that cannot be C source, or "". For such a file,
// the errors of a compiler do not help.
func notC(text []byte) string {
	for _, f := range otherFiles {
		if bytes.HasPrefix(text, []byte(f.magic)) {
			return f.kind
		}
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return "binary"
	}
	code := cComment.ReplaceAllStringFunc(string(text), func(s string) string {
		if s[0] == '/' {
			return " " + strings.Repeat("\n", strings.Count(s, "\n"))
		}
		return `""`
	})
	code = cContinued.ReplaceAllString(code, " ")
	switch first := strings.TrimSpace(code); {
	case first == "":
		return "empty"
	case first[0] == '{' || first[0] == '[':
		return "JSON, which is a policy already"
	case first[0] == '<':
		return "HTML or XML"
	}
	for _, m := range cDirective.FindAllStringSubmatch(code, -1) {
		if !cKnown.MatchString(m[1]) {
			return fmt.Sprintf("not C: %q is not a preprocessing directive", strings.TrimSpace(m[0]))
		}
	}
	if !cTables.MatchString(code) {
		return "without tables: it neither mentions lws_ss_policy_t nor includes a file"
	}
	plain := cDirective.ReplaceAllString(code, "")
	if i := strings.IndexAny(plain, "`@"); i >= 0 {
		return fmt.Sprintf("not C: it has a %q outside of strings and comments", plain[i:i+1])
	}
	return ""
}
