package lint_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// FuzzFix checks that the laws of fixes hold for any text.
func FuzzFix(f *testing.F) {
	for _, r := range rules.All() {
		f.Add(r.Bad, false)
		f.Add(r.Good, true)
	}
	for _, test := range harmless {
		f.Add(test.policy, true)
	}
	f.Fuzz(checkLaws)
}

// FuzzFixMistakes checks that the laws hold for policies with typical mistakes of people
// and programs. Each byte of mistakes selects a mistake and its place.
func FuzzFixMistakes(f *testing.F) {
	policies := readPolicies(f)
	for i := 0; i < len(policies); i += 1 + len(policies)/120 { // go test runs the seeds too
		f.Add(uint16(i), []byte{byte(i), 0, byte(3 * i)}, i%2 == 0)
		f.Add(uint16(i), []byte{1, byte(i), byte(7 * i), 4, byte(i), byte(i)}, i%2 == 1)
	}
	f.Fuzz(func(t *testing.T, policy uint16, mistakes []byte, unsafe bool) {
		text := policies[int(policy)%len(policies)]
		if len(mistakes) > 12 {
			mistakes = mistakes[:12]
		}
		for ; len(mistakes) >= 3; mistakes = mistakes[3:] {
			text = mistake(text, mistakes[0], int(mistakes[1])<<8|int(mistakes[2]))
		}
		checkLaws(t, text, unsafe)
	})
}

// mistake returns a text with a mistake of the given kind and place.
func mistake(text string, kind byte, place int) string {
	var marks []int // offsets of tokens
	for i := range text {
		if strings.IndexByte("\"{}[],:#\n", text[i]) >= 0 {
			marks = append(marks, i)
		}
	}
	if len(marks) < 2 {
		return text
	}
	n := place % len(marks)
	at := marks[n]
	next := marks[(n+1)%len(marks)]
	from, to := min(at, next), max(at, next)
	replace := func(old, new string) string {
		if i := strings.Index(text[at:], old); i >= 0 {
			return text[:at+i] + new + text[at+i+len(old):]
		}
		return strings.Replace(text, old, new, 1)
	}
	switch kind % 20 {
	case 0:
		return text[:at] + text[at+1:] // a deletion
	case 1:
		return text[:at] + text[at:at+1] + text[at:] // a duplication
	case 2:
		return text[:from] + text[to:to+1] + text[from+1:to] + text[from:from+1] + text[to+1:] // a swap
	case 3:
		return text[:from] + text[to:] // a token is missing
	case 4:
		return text[:to] + text[from:to] + text[to:] // a token is repeated
	case 5:
		return text[:at] // cut off
	case 6:
		return "\ufeff" + text
	case 7:
		b := []byte("\xff\xfe")
		for _, u := range utf16.Encode([]rune(text)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return string(b)
	case 8:
		return replace(": ", ": @VALUE@ ")
	case 9:
		return replace("true", []string{`"true"`, "True", "yes", "on", "1", `"on"`}[place%6])
	case 10:
		return replace("443", []string{`"443"`, "0x1bb", "+443", "@PORT@", "443.0", "443s"}[place%6])
	case 11:
		return `/* firmware */ static const char policy[] = {` + text + `};`
	case 12:
		return text[:at] + "\n/* c */ // c\n" + text[at:]
	case 13:
		return strings.ReplaceAll(text, `"`, `'`)
	case 14:
		return text[:at] + "\u00a0" + text[at:]
	case 15:
		return replace(`":`, `"=`)
	case 16:
		return replace(`": "`, "\u201d: \u201c")
	case 17:
		return replace(`",`, `";`)
	case 18:
		return replace(`": "`, "\": \"-----BEGIN CERTIFICATE-----\nMIIBbzCCARWgAwIBAgIBATAKBggqhkjOPQQDAjAe\n-----END CERTIFICATE-----\n")
	}
	return text[:at] + string(rune(' '+place%95)) + text[at:] // a typed character
}

// readPolicies returns the fixtures, the examples of the rules, and the policies
// in SSPOLICY_CORPUS.
func readPolicies(t testing.TB) []string {
	var texts []string
	read := func(dir string) {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".json") {
				return err
			}
			text, err := os.ReadFile(path)
			if len(text) < 12<<10 {
				texts = append(texts, string(text))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read("../fixtures")
	if corpus := os.Getenv("SSPOLICY_CORPUS"); corpus != "" {
		read(corpus)
	}
	for _, r := range rules.All() {
		texts = append(texts, r.Bad, r.Good)
	}
	return texts
}

// changing maps rules whose safe fixes change the compiled policy to their messages. Rules
// that concern only lws's parser are not included: their fixes make lws read the policy as
// it is compiled.
var changing = []string{
	"bad-endpoint", "bad-proxy", "bad-value", "double-content-length", "endpoint-override", "header-colon", "leading-slash",
	"legacy-form", "missing-url", "syntax", "unknown-key", "unknown-method", "wrong-type",
}

// checkLaws checks the laws of fixes for a text.
func checkLaws(t *testing.T, text string, unsafe bool) {
	o := lint.Options{UnsafeFixes: unsafe, With: rules.Groups()}
	d := schema.Parse("p", []byte(text))
	before := lint.Run(d, rules.All(), o)
	for _, g := range before {
		for _, at := range append([]schema.Related{{Span: g.Span}}, g.Related...) {
			if s := at.Span; s.Source != d.Source || s.Start < 0 || s.End < s.Start || s.End > len(text) {
				t.Fatalf("%q: %s [%s] is at %d-%d of %q", text, g.Message, g.Rule, s.Start, s.End, s.Source.Text)
			}
		}
	}
	fixed, applied := lint.Fix(d, rules.All(), o)
	if len(applied) == 0 {
		if fixed != d {
			t.Fatalf("%q was changed to %q, but nothing was fixed", text, fixed)
		}
		return
	}
	if d.NotPolicy() != nil {
		t.Fatalf("%q is not a policy, and was fixed to %q", text, fixed)
	}
	if n, most := syntaxErrors(fixed), syntaxErrors(d); n > most {
		t.Fatalf("%q has %d syntax errors, and was fixed to %q, which has %d", text, most, fixed, n)
	}
	left := map[string]int{} // findings by rule
	for _, g := range before {
		left[g.Rule]++
	}
	worst, _ := schema.Worst(applied)
	for _, g := range lint.Run(fixed, rules.All(), o) {
		if left[g.Rule]--; left[g.Rule] < 0 && (g.Severity > schema.Info || worst == schema.Info) {
			t.Fatalf("%q was fixed to %q, which has a new finding: %s: %s [%s]", text, fixed, g.Span, g.Message, g.Rule)
		}
	}
	if again, more := lint.Fix(fixed, rules.All(), o); len(more) > 0 || again != fixed {
		t.Fatalf("%q was fixed to %q, and again to %q", text, fixed, again)
	}
	lost := letters(text)
	for c, n := range letters(fixed.Source.Text) {
		lost[c] -= n
	}
	for _, g := range applied {
		if g.Span.Source != d.Source || g.Span.Start < 0 || g.Span.End > len(text) {
			t.Fatalf("%q: %s is at %d-%d", text, g.Message, g.Span.Start, g.Span.End)
		}
		for _, e := range g.Fixes[0].Edits {
			for c, n := range letters(e.Span.Text()) {
				lost[c] -= n
			}
		}
		if !unsafe && !g.Fixes[0].Safe {
			t.Fatalf("%q: an unsafe fix of %s was applied: %s", text, g.Rule, g.Fixes[0].Message)
		}
	}
	for c, n := range lost {
		if n > 0 {
			t.Fatalf("%q was fixed to %q: %d times %q is lost outside of the edits", text, fixed, n, c)
		}
	}
	keepsTables(t, d, fixed, applied)
}

// keepsTables checks that safe fixes do not change the compiled policy, unless their
// message says so.
func keepsTables(t *testing.T, d, fixed *schema.Document, applied []schema.Diagnostic) {
	for _, g := range applied {
		if !g.Fixes[0].Safe || slices.Contains(changing, g.Rule) {
			return
		}
	}
	before, found := codegen.Compile(schema.NewPolicy(d))
	if schema.HasErrors(d.Syntax) || schema.HasErrors(found) {
		return
	}
	after, _ := codegen.Compile(schema.NewPolicy(fixed))
	if !reflect.DeepEqual(before, after) {
		t.Fatalf("%q was fixed to %q, which is another policy", d, fixed)
	}
}

func syntaxErrors(d *schema.Document) (n int) {
	for _, g := range d.Syntax {
		if g.Severity == schema.Error {
			n++
		}
	}
	return n
}

// letters counts the letters and digits of a text.
func letters(s string) map[rune]int {
	m := map[rune]int{}
	for _, r := range s {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			m[r]++
		}
	}
	return m
}
