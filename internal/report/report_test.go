package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/schema"
)

var update = flag.Bool("update", false, "rewrite the files in testdata/golden")

// at returns the span of the first occurrence of a text in a source.
func at(s *schema.Source, text string) schema.Span {
	i := strings.Index(s.Text, text)
	if i < 0 {
		panic("no " + text + " in " + s.Name)
	}
	return schema.Span{Source: s, Start: i, End: i + len(text)}
}

func where(s *schema.Source, start, end int) schema.Span {
	return schema.Span{Source: s, Start: start, End: end}
}

// sample returns a report that covers the edge cases of all formats.
func sample() *Report {
	plain := &schema.Source{Name: "policies/plain.json", Text: `{
  "s": [ { "mintest": {
    "retry": "slow",
    "tsl": true
  } } ],
  "retry": [ { "slow": { "backoff": [ 1000 ] } } ]
}
`}
	clean := &schema.Source{Name: "clean.json"}
	name := &schema.Source{Name: "./odd \"name\",\t50%:\n<&>\\ü#?.json", Text: "{\"a\": 1}\n"}
	tabs := &schema.Source{Name: "tabs.json", Text: "{\n\t\t\"a\":\t1\n}\n"}
	wide := &schema.Source{Name: "wide.json", Text: "{\"日本語\": \"e\u0301e\u0301 👍🏽\", \"port\": 70000}\n"}
	crlf := &schema.Source{Name: "crlf.json", Text: "{\r\n  \"a\": [\r\n    1\r\n  ]\r\n}\r\n"}
	long := &schema.Source{Name: "long.json", Text: `{"s":[` + strings.Repeat(`{"x":{"port":1}},`, 200) + `{"a":{"port":70000,"tls":1}},` + strings.Repeat(`{"y":{"port":1}},`, 200) + `{"a":{}}]}`}
	control := &schema.Source{Name: "control.json", Text: "{\"\x1b[31m\": \"\u009b\u202e\x00\xff\"}"}
	empty := &schema.Source{Name: "empty.json"}
	piped := &schema.Source{Name: stdin, Text: "{\"b\": 2}"}
	fragment := &schema.Source{Name: "/srv/work/fragment.json", Text: "{}\n"}

	r := &Report{
		Version: "v1.2.3", Fails: failing, Dir: "/srv/work",
		Rules: []Rule{
			{Name: "forward-reference", Severity: schema.Error, Summary: "something is used before it is defined",
				Why: "lws reads a policy once.", LWS: "The policy is refused."},
			{Name: "unknown-key", Severity: schema.Error, Summary: "an unknown key", Why: "lws makes a *phantom* of it."},
		},
	}
	for _, s := range []*schema.Source{plain, clean, name, tabs, wide, crlf, long, control, empty, piped} {
		r.Files = append(r.Files, s.Name)
	}
	add := func(rule string, severity schema.Severity, span schema.Span, message string) *schema.Diagnostic {
		r.Diagnostics = append(r.Diagnostics, schema.Diagnostic{Rule: rule, Severity: severity, Span: span, Message: message})
		return &r.Diagnostics[len(r.Diagnostics)-1]
	}
	d := add("forward-reference", schema.Error, at(plain, `"slow"`), `backoff scheme "slow" is defined only later`)
	d.Related = []schema.Related{
		{Span: where(plain, 94, 100), Message: "defined here"},
		{Span: at(plain, `"retry"`), Message: "on the same line"},
	}
	d = add("unknown-key", schema.Error, at(plain, `"tsl"`), `"tsl" is not a key of a streamtype: did you mean "tls"?`)
	d.Fixes = []schema.Fix{
		{Message: "write tls", Edits: []schema.Edit{{Span: at(plain, `"tsl"`), NewText: `"tls"`}}},
		{Message: "remove it, and say so\nin the fragment", Edits: []schema.Edit{
			{Span: at(plain, `"tsl": true`), NewText: ""}, {Span: where(fragment, 1, 1), NewText: "\n"}}},
		{Message: "a fix without edits"},
	}
	add("line-end", schema.Warning, at(name, `"a"`), "a message: 100%,\r\nwith <b>, \"quotes\" & 'such', \\ and {0} [link](1)")
	add("tabs", schema.Info, at(tabs, `1`), "after tabs")
	add("wide", schema.Warning, at(wide, `70000`), "after 日本語")
	add("wide", schema.Warning, at(wide, "\u0301e\u0301 👍🏽"), "starts with a combining character")
	add("crlf", schema.Warning, where(crlf, 8, 8), "an empty span at the end of a line")
	add("crlf", schema.Warning, at(crlf, "[\r\n    1\r\n  ]"), "several lines")
	add("crlf", schema.Error, where(crlf, len(crlf.Text), len(crlf.Text)), "the end of the text")
	d = add("long", schema.Error, at(long, `70000`), "in the middle of a long line")
	d.Related = []schema.Related{
		{Span: at(long, `"tls"`), Message: "in the same excerpt"},
		{Span: where(long, len(long.Text)-8, len(long.Text)-5), Message: "far away on the same line"},
	}
	add("long", schema.Warning, where(long, 5, len(long.Text)-1), "a long span")
	add("long", schema.Warning, where(long, 5, len(long.Text)-1), "the same span again")
	add("control", schema.Error, at(control, "\x1b[31m"), "contains an escape \x1b[31m\x00\u202e\xff")
	add("control", schema.Error, where(control, 12, 18), "ends inside a character")
	add("empty", schema.Error, where(empty, 0, 0), "the text is empty")
	add("stdin", schema.Info, at(piped, `2`), "from standard input")
	add("overlay", schema.Error, where(fragment, 0, 2), "in a file that is not among the arguments")
	return r
}

// outputs are all formats with the names of their golden files.
func outputs(t testing.TB) map[string]Output {
	tmpl, err := ParseTemplate(`{{range .}}{{.file}}:{{.line}} {{printf "%05d" .offset}} {{json .message}}{{range .fixes}} [{{.message}}: {{json .edits}}]{{end}}
{{end}}`)
	if err != nil {
		t.Fatal(err)
	}
	outs := map[string]Output{"color.txt": {Format: FormatText, Color: true}}
	for _, f := range Formats() {
		ext := map[Format]string{FormatJSON: ".json", FormatJSONL: ".jsonl", FormatSARIF: ".sarif", FormatGitLab: ".json", FormatJUnit: ".xml"}[f]
		if ext == "" {
			ext = ".txt"
		}
		outs[string(f)+ext] = Output{Format: f, Template: tmpl}
	}
	return outs
}

func write(t testing.TB, o Output, r *Report) []byte {
	var b bytes.Buffer
	if err := o.Write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	for name, o := range outputs(t) {
		t.Run(name, func(t *testing.T) {
			got := write(t, o, sample())
			file := filepath.Join("testdata", "golden", name)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Error(d)
			}
			if second := write(t, o, sample()); !bytes.Equal(got, second) {
				t.Error("not deterministic")
			}
		})
	}
}

// TestColor checks that text without color has no escape sequences, even if the policy
// has some, and that color only adds escape sequences.
func TestColor(t *testing.T) {
	plain := string(write(t, Output{Format: FormatText}, sample()))
	if strings.ContainsRune(plain, '\x1b') {
		t.Error("text contains an escape character")
	}
	color := string(write(t, Output{Format: FormatText, Color: true}, sample()))
	for _, style := range append(severityStyles[:], styleStrong, styleFaint, styleNote, styleFix, "0") {
		color = strings.ReplaceAll(color, "\x1b["+style+"m", "")
	}
	if d := cmp.Diff(plain, color); d != "" {
		t.Error(d)
	}
}

// TestManyNotes checks that text shows the first notes of a diagnostic, and how many follow.
func TestManyNotes(t *testing.T) {
	at := schema.Span{Source: &schema.Source{Name: "p.json", Text: "{}"}, End: 1}
	d := schema.Diagnostic{Span: at, Message: "m", Rule: "r"}
	for range maxNotes + 3 {
		d.Related = append(d.Related, schema.Related{Span: at, Message: "too"})
	}
	got := string(write(t, Output{Format: FormatText}, &Report{Diagnostics: []schema.Diagnostic{d}}))
	if n := strings.Count(got, "note: too\n"); n != maxNotes || !strings.Contains(got, "note: 3 more;") {
		t.Errorf("%d notes in\n%s", n, got)
	}
}

func TestNothingFound(t *testing.T) {
	for name, o := range outputs(t) {
		for _, r := range []*Report{{}, {Files: []string{"a.json"}}} {
			got := write(t, o, r)
			if err := valid(o.Format, got, r); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if s := (&Report{Files: []string{"a.json"}}).Summary(); s != "" {
		t.Errorf("summary %q", s)
	}
}

func TestSummary(t *testing.T) {
	a, b := &schema.Source{Name: "a"}, &schema.Source{Name: "b"}
	list := func(s *schema.Source, severities ...schema.Severity) (ds []schema.Diagnostic) {
		for _, v := range severities {
			ds = append(ds, schema.Diagnostic{Severity: v, Span: schema.Span{Source: s}})
		}
		return ds
	}
	for _, test := range []struct {
		files []string
		ds    []schema.Diagnostic
		want  string
	}{
		{[]string{"a"}, list(a, schema.Error), "1 error"},
		{[]string{"a"}, list(a, schema.Info, schema.Warning, schema.Error, schema.Error, schema.Info), "2 errors, 1 warning, 2 infos"},
		{[]string{"a", "b"}, append(list(a, schema.Error), list(b, schema.Warning, schema.Warning)...), "1 error, 2 warnings in 2 of 2 files"},
		{[]string{"a", "b", "a", "c"}, list(b, schema.Info), "1 info in 1 of 3 files"},
	} {
		if got := (&Report{Files: test.files, Diagnostics: test.ds}).Summary(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestLevel(t *testing.T) {
	for level, want := range map[Level]string{"": "", "none": "", "error": "error", "warning": "warning error", "info": "info warning error"} {
		var got []string
		for _, s := range []schema.Severity{schema.Info, schema.Warning, schema.Error} {
			if level.Fails(s) {
				got = append(got, s.String())
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("level %q: %s, want %s", level, got, want)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	if err := Write(io.Discard, "yaml", nil); err == nil {
		t.Error("no error")
	}
}

func TestTemplate(t *testing.T) {
	r := sample()
	r.Diagnostics = r.Diagnostics[:1]
	for _, test := range []struct{ text, want string }{
		{`{{len .}}`, "1"},
		{`{{range .}}{{.rule}} {{.severity}} {{.endColumn}}{{end}}`, "forward-reference error 20"},
		{`{{range .}}{{if eq .line 3}}three{{end}}{{end}}`, "three"},
		{`{{range .}}{{range .related}}{{.line}}:{{.message}};{{end}}{{range .fixes}}none{{end}}{{end}}`, "6:defined here;3:on the same line;"},
		{`{{json (index . 0 "message")}}`, `"backoff scheme \"slow\" is defined only later"`},
		{`{{range .}}{{.nonsense}}{{end}}`, "error"},
		{`{{.nonsense}}`, "error"},
	} {
		tmpl, err := ParseTemplate(test.text)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		err = Output{FormatTemplate, false, tmpl}.Write(&b, r)
		if got := b.String(); test.want == "error" {
			if _, ok := err.(template.ExecError); !ok {
				t.Errorf("%s: %v", test.text, err)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%s: %q, %v, want %q", test.text, got, err, test.want)
		}
	}
	if _, err := ParseTemplate("{{"); err == nil {
		t.Error("no error")
	}
}

// TestDocsHaveEveryMember checks that docs/formats.md describes all members and formats.
func TestDocsHaveEveryMember(t *testing.T) {
	docs, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	text := write(t, Output{Format: FormatJSON}, sample())
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), `": `); ok && !seen[name] {
			seen[name] = true
			if member := strings.TrimPrefix(name, `"`); !bytes.Contains(docs, []byte("`"+member+"`")) {
				t.Errorf("no member %s", member)
			}
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d members, want at least 15", len(seen))
	}
	if want := fmt.Sprintf("`version` is %d.", jsonVersion); !bytes.Contains(docs, []byte(want)) {
		t.Errorf("no %q", want)
	}
	for _, f := range Formats() {
		if !bytes.Contains(docs, []byte("\n## "+string(f)+"\n")) {
			t.Errorf("no format %s", f)
		}
	}
}

func TestGitHubEscapes(t *testing.T) {
	for _, test := range []struct{ text, data, property string }{
		{"", "", ""},
		{"plain", "plain", "plain"},
		{"a: b, c", "a: b, c", "a%3A b%2C c"},
		{"100%", "100%25", "100%25"},
		{"%0A", "%250A", "%250A"},
		{"a\r\nb\n", "a%0D%0Ab%0A", "a%0D%0Ab%0A"},
		{"::error::x", "::error::x", "%3A%3Aerror%3A%3Ax"},
		{"a\x1b[1m\x00\tb", "a[1m\tb", "a[1m\tb"},
		{`C:\a "ü"`, `C:\a "ü"`, `C%3A\a "ü"`},
	} {
		if got := githubData(test.text); got != test.data {
			t.Errorf("data %q: %q, want %q", test.text, got, test.data)
		}
		if got := githubProperty(test.text); got != test.property {
			t.Errorf("property %q: %q, want %q", test.text, got, test.property)
		}
	}
}

func TestPaths(t *testing.T) {
	r := &Report{Dir: "/srv/work"}
	for _, test := range []struct{ name, path, uri string }{
		{"a.json", "a.json", "a.json"},
		{"./b/../c/a b.json", "c/a b.json", "c/a%20b.json"},
		{"../a.json", "../a.json", "../a.json"},
		{"/srv/work/c/a.json", "c/a.json", "c/a.json"},
		{"/srv/workshop/a.json", "/srv/workshop/a.json", "file:///srv/workshop/a.json"},
		{"/etc/50%.json", "/etc/50%.json", "file:///etc/50%25.json"},
		{"a:b.json", "a:b.json", "a%3Ab.json"},
		{"a?b#c[d].json", "a?b#c[d].json", "a%3Fb%23c%5Bd%5D.json"},
		{"ü\n\xff.json", "ü\n\xff.json", "%C3%BC%0A%FF.json"},
		{"<stdin>", "<stdin>", "%3Cstdin%3E"},
	} {
		if got := r.path(test.name); got != filepath.ToSlash(test.path) {
			t.Errorf("path of %q: %q, want %q", test.name, got, test.path)
		}
		if got := r.uri(test.name); got != test.uri {
			t.Errorf("URI of %q: %q, want %q", test.name, got, test.uri)
		}
	}
}

// TestFingerprints checks that fingerprints do not change when the text around them
// does, and that they are unique.
func TestFingerprints(t *testing.T) {
	const before = `{"s":[{"a":{"port":70000,"port":70000}},{"b":{"port":70000}}]}`
	const after = `
# moved
{ "retry": [ { "r": { "backoff": [ 1 ] } } ],
  "s": [ { "new": {} },
         { "a": { "tls": true, "port": 70000, "port": 70000 } }, { "b": { "port": 70000 } } ] }`
	sums := func(text string, of ...string) []string {
		src := &schema.Source{Name: "p.json", Text: text}
		var ds []schema.Diagnostic
		for _, s := range of {
			for i := 0; ; {
				j := strings.Index(text[i:], s)
				if j < 0 {
					break
				}
				ds = append(ds, schema.Diagnostic{Rule: "r", Span: where(src, i+j, i+j+len(s))})
				i += j + len(s)
			}
		}
		return Fingerprints(ds)
	}
	old := sums(before, "70000")
	if d := cmp.Diff(old, sums(after, "70000")); d != "" {
		t.Errorf("fingerprints changed: %s", d)
	}
	seen := map[string]bool{}
	for _, sum := range append(old, sums(before, `"port"`)...) {
		if seen[sum] {
			t.Errorf("%s is not unique", sum)
		}
		seen[sum] = true
	}
}

// valid checks that a text is valid in its format, and complete.
func valid(f Format, text []byte, r *Report) error {
	switch f {
	case FormatJSON, FormatGitLab:
		if !json.Valid(text) {
			return fmt.Errorf("invalid JSON: %s", text)
		}
	case FormatJSONL:
		lines := strings.SplitAfter(string(text), "\n")
		if lines = lines[:len(lines)-1]; len(lines) != len(r.Diagnostics) {
			return fmt.Errorf("%d lines for %d diagnostics", len(lines), len(r.Diagnostics))
		}
		for _, line := range lines {
			if !json.Valid([]byte(line)) {
				return fmt.Errorf("invalid JSON: %s", line)
			}
		}
	case FormatGitHub:
		if n := bytes.Count(text, []byte("\n")); n != len(r.Diagnostics) {
			return fmt.Errorf("%d lines for %d diagnostics", n, len(r.Diagnostics))
		}
	case FormatSARIF:
		return validSARIF(text, r)
	case FormatJUnit:
		return validJUnit(text, r)
	}
	return nil
}

func validJUnit(text []byte, r *Report) error {
	var report junitReport
	d := xml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&report); err != nil {
		return err
	}
	if _, err := d.Token(); err != nil && err != io.EOF {
		return err
	}
	failures := 0
	for _, g := range r.Diagnostics {
		if r.Fails(g) {
			failures++
		}
	}
	if report.Failures != failures || bytes.Count(text, []byte("<failure ")) != failures {
		return fmt.Errorf("%d failures, want %d", report.Failures, failures)
	}
	if n := bytes.Count(text, []byte("<testcase ")); report.Tests != n || n < len(r.Diagnostics) {
		return fmt.Errorf("tests=%d, %d cases, %d diagnostics", report.Tests, n, len(r.Diagnostics))
	}
	return nil
}

func TestJUnitText(t *testing.T) {
	text := write(t, Output{Format: FormatJUnit}, sample())
	var got struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string `xml:"name,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, s := range got.Suites {
		names[s.Name] = len(s.Cases)
	}
	want := map[string]int{
		"policies/plain.json": 2, "clean.json": 1, "odd \"name\",\t50%:\n<&>\\ü#?.json": 1, "tabs.json": 1, "wide.json": 2,
		"crlf.json": 3, "long.json": 3, "control.json": 2, "empty.json": 1, "<stdin>": 1, "fragment.json": 1,
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if m := got.Suites[2].Cases[0].Failure.Message; m != sample().Diagnostics[2].Message {
		t.Errorf("message %q", m)
	}
}

func failing(d schema.Diagnostic) bool { return Level("warning").Fails(d.Severity) }
