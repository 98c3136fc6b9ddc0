package extract

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// text returns the text of the only policy in a file.
func text(t *testing.T, file, content string, o Options) string {
	t.Helper()
	all := Policies(file, []byte(content), o)
	if len(all) != 1 {
		t.Fatalf("%s: %d policies in %q", file, len(all), content)
	}
	return all[0].Document.Source.Text
}

func TestLiterals(t *testing.T) {
	hosts := Options{Define: map[string]string{"HOST": "h", "PORT": "443", "BIG": "2"}}
	for _, c := range []struct{ file, content, want string }{
		{"a.c", `char *p = "{\"s\": []}";`, `{"s": []}`},
		{"a.h", "p = \"{\"\n\t\"\\\"s\\\":\" /* \"x\" */ \" []\" // \"y\"\n \"}\";", `{"s": []}`},
		{"a.cpp", `auto p = R"x({"s": [ ")" ]})x";`, `{"s": [ ")" ]}`},
		{"a.c", `"{\"\x73\": [\n\t\"\\u00e9\", \"\303\251\u00e9\"]}"`, "{\"s\": [\n\t\"\\u00e9\", \"éé\"]}"},
		{"a.c", "\"{\\\"s\\\": \\\n[]}\"", `{"s": []}`}, // line continuation
		{"a.c", "\"{\\\"s\\\": [\" A \" \" B(x, (y)) \"]\" C \"}\"", `{"s": [@A@ @B@]@C@}`},
		{"a.c", "#define A \"1\" \"2\"\n\"{\\\"s\\\": [\" A \"]}\"", `{"s": [12]}`},
		{"a.c", "\"{\\\"s\\\": [\"\n#if defined(A)\n\"1\"\n#elif !defined(A) && 2 > 1\n\"2\"\n#else\n\"3\"\n#endif\n\"]}\"", `{"s": [2]}`},
		{"a.c", "#define A\n\"{\\\"s\\\": [\"\n#ifdef A\n\"1\"\n#if (BIG >= 2) // x\n\"5\"\n#endif\n#else\n\"2\"\n#endif\n\"]}\"", `{"s": [1]}`},
		{"a.c", "#define A /*\n*//*\n\"{}\" */ \"1\" // /*\n\"{\\\"s\\\": [\" A \"]}\"", `{"s": [1]}`},          // comments in a directive
		{"a.c", "#define A \"//\" /* '\n*/ \"/*\" '\"'\n\"{\\\"s\\\": []}\"", `{"s": []}`},                      // and quotes
		{"a.c", "#error don't /* x\n\"{\\\"s\\\": [\"\n#if 1 \\\r\n\"2\"\n\"3\"\n#endif\n\"]}\"", `{"s": [3]}`}, // continued line
		{"a.c", "#if 0\np = \"{\\\"s\\\": [1]}\"\n#else\nq;\n#endif", `{"s": [1]}`},                             // condition around the text
		{"a.c", `f(p, '"', "{\"s\": [%d, \"%s\", \"5%%\"]}");`, `{"s": [@d@, "@s@", "5%"]}`},
		{"a.c", `p = "{\"s\": [\"5% off\"]}";`, `{"s": ["5% off"]}`}, // not a format
		{"a.json.in", `{"s": [@PORT@, ${PORT}, "@HOST@", "${HOST}"]}`, `{"s": [@PORT@, @PORT@, "@HOST@", "${HOST}"]}`},
		{"a.json.in", `{"s": [1] # @PORT@` + "\n}", `{"s": [1] # @PORT@` + "\n}"},
	} {
		if got := text(t, c.file, c.content, Options{}); got != c.want {
			t.Errorf("%s: got %q, want %q", c.content, got, c.want)
		}
	}
	for _, c := range []struct {
		file, content string
		o             Options
		want          string
	}{
		{"a.c", "\"{\\\"s\\\": [\" STR(PORT) \", \" HOST \"\"\n#if BIG >= 2\n\"7\"\n#endif\n\"]}\"", hosts, `{"s": [443, h7]}`},
		{"a.json", `{"s": [@PORT@, "${HOST}", "@X@"]}`, hosts, `{"s": [443, "h", "@X@"]}`},
		{"a.json", `{"s": [@A@, %d]}`, Options{Template: CMake}, `{"s": [@A@, %d]}`},
		{"a.json", `{"s": ["a@A@b", %5.2f, "x%sy"]}`, Options{Template: Printf}, `{"s": ["a@A@b", @f@, "x@s@y"]}`},
		{"a.c", `"{\"s\": [" A "%d]}"`, Options{Template: None}, `{"s": [@A@%d]}`},
	} {
		if got := text(t, c.file, c.content, c.o); got != c.want {
			t.Errorf("%s: got %q, want %q", c.content, got, c.want)
		}
	}
	for _, content := range []string{`p = "{}";`, `p = "{\"x\": []}";`, `p = "\"s\": [";`, `p = "{\"s\": [`, "#if", `R"`, "'", "\\"} {
		if all := Policies("a.c", []byte(content), Options{}); len(all) != 0 {
			t.Errorf("%s: %d policies", content, len(all))
		}
	}
}

// lintAll returns the findings in a file, as lint reports them.
func lintAll(file, content string, o Options) (all []schema.Diagnostic) {
	for _, p := range Policies(file, []byte(content), o) {
		all = append(all, p.Place(lint.Run(p.Document, rules.All(), lint.Options{Shape: p.Partial}))...)
	}
	return schema.SortDiagnostics(all)
}

// TestPlaces checks that findings point to their place in the file, and do not concern
// placeholders.
func TestPlaces(t *testing.T) {
	const rest = `\"protocol\": \"h1\", \"http_method\": \"GET\", \"http_url\": \"\", \"tls\": true, \"opportunistic\": true`
	for _, c := range []struct{ content, want string }{
		{"p = \"{\\\"s\\\": [{\\\"a\\\": {\\\"endpoint\\\": \\\"x.org\\\",\"\n  \"\\\"port\\\": 70443, " + rest + "}}]}\";", "a.c:2:14 out-of-range 70443"},
		{"p = \"{\\\"s\\\": [{\\\"a\\\": {\\\"endpoint\\\": \\\"x.org\\\",\"\n  \"\\\"port\\\": \" PORT \", " + rest + "}}]}\";", ""},
		{"p = \"{\\\"s\\\": [{\\\"a\\\": {\\\"endpoint\\\": \\\"\" HOST \"\\\",\"\n  \"\\\"prt\\\": 1, \\\"port\\\": 443, " + rest + "}}]}\";", `a.c:2:4 unknown-key \"prt\"`},
		{"p = \"{\\\"s\\\": [{\\\"a\\\": {\" COMMON \"\\\"port\\\": 443, \\\"retry\\\": \\\"x\\\"}}, \" MORE \"]}\";", ""},
	} {
		var got []string
		for _, g := range lintAll("a.c", c.content, Options{}) {
			if g.Severity > schema.Info {
				got = append(got, g.Span.String()+" "+g.Rule+" "+g.Span.Text())
			}
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%s\ngot %q, want %q", c.content, got, c.want)
		}
	}
}

// TestFix checks that a fix in C changes only its own place, which is in one literal.
func TestFix(t *testing.T) {
	const start = "p = \"{\\\"s\\\": [{\\\"a\\\": {\\\"endpoint\\\": \\\"x.org\\\", \\\"port\\\": 443, \\\"protocol\\\": \\\"h1\\\", \\\"http_method\\\": \\\"GET\\\", \\\"http_url\\\": \\\"\\\", \"\n\t"
	for _, c := range []struct{ before, want string }{
		{`"\"oportunistic\": true}}]}";`, `"\"opportunistic\": true}}]}";`},
		{`"\"oport" "unistic\": true}}]}";`, ""},
		{`"\"oport" X "\": true}}]}";`, ""},
		{`"\42oportunistic\": true}}]}";`, `"\"opportunistic\": true}}]}";`},
		{`"\"\157portunistic\": true}}]}";`, `"\"opportunistic\": true}}]}";`},
	} {
		find := func(p *Policy) []schema.Diagnostic {
			return p.Place(lint.Run(p.Document, rules.All(), lint.Options{}))
		}
		got, fixed := Fix("a.c", []byte(start+c.before), Options{}, false, find)
		want := start + c.want
		if c.want == "" {
			want = start + c.before
		}
		if got != want || len(fixed) != len(c.want)/max(1, len(c.want)) {
			t.Errorf("got %q, %d fixed, want %q", got, len(fixed), want)
		}
	}
}

// TestFixture checks that the places of findings in C and in the policy itself agree.
func TestFixture(t *testing.T) {
	policy, err := os.ReadFile("../../fixtures/weather-mistakes.json")
	if err != nil {
		t.Fatal(err)
	}
	var c strings.Builder
	c.WriteString("const char *policy =\n")
	for line := range strings.Lines(string(policy)) {
		c.WriteString(`"` + escapeC.Replace(strings.TrimSuffix(line, "\n")) + `\n"` + "\n")
	}
	c.WriteString(";\n")
	describe := func(g schema.Diagnostic, line int) string {
		return g.Rule + " " + strings.ReplaceAll(g.Span.Text(), `\"`, `"`) + " " + strings.Repeat("|", g.Span.Position().Line-line)
	}
	var got, want []string
	for _, g := range lintAll("a.c", c.String(), Options{}) {
		got = append(got, describe(g, 1))
	}
	for _, g := range lint.Run(schema.Parse("a.json", policy), rules.All(), lint.Options{}) {
		want = append(want, describe(g, 0))
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestCorpus tests the policies in C and in templates that SSPOLICY_CORPUS has.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("SSPOLICY_CORPUS")
	if dir == "" {
		t.Skip("SSPOLICY_CORPUS is not set")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := Policies(file, content, Options{Template: Auto, Define: map[string]string{"UNUSED": ""}})[0]
		for _, g := range p.Document.Syntax {
			if schema.Placeholder(g.Span.Text()) != "" {
				t.Errorf("%v: %s", g.Span, g.Message)
			}
		}
	}
}

// FuzzC checks that places are inside any file, and that an edit with an exact place has
// the intended effect on the policy.
func FuzzC(f *testing.F) {
	f.Add("p = \"{\\\"s\\\": [{\\\"a\\\": {\" X \"\\\"port\\\": %d}}]}\";", 3, 9, "x")
	f.Add("#define A \"1\"\n\"{\\\"s\\\": [\" A\n#if A\n\"2\"\n#endif\n\"]}\"", 1, 4, `"`)
	f.Add("R\"({\"s\": [@A@]})\"", 2, 5, "y")
	f.Fuzz(func(t *testing.T, content string, start, end int, with string) {
		for i, p := range Policies("a.c", []byte(content), Options{}) {
			for _, g := range p.Place(lint.Run(p.Document, rules.All(), lint.Options{Shape: true})) {
				if s := g.Span; s.Source.Text != content || s.Start < 0 || s.End < s.Start || s.End > len(content) {
					t.Fatalf("%q: %v is at %d to %d", content, g.Message, s.Start, s.End)
				}
			}
			text := p.Document.Source.Text
			if strings.ContainsAny(with, "\n\r@%\x00") || strings.ContainsAny(text, "%@") {
				continue
			}
			from := int(uint(start) % uint(len(text)+1))
			to := from + int(uint(end)%uint(len(text)-from+1))
			edits, ok := p.edits([]schema.Edit{{Span: schema.Span{Source: p.Document.Source, Start: from, End: to}, NewText: with}})
			if !ok {
				continue
			}
			after := Policies("a.c", []byte(schema.ApplyEdits(p.text.src, edits)), Options{})
			want := text[:from] + with + text[to:]
			if i < len(after) && after[i].Document.Source.Text != want && sections.MatchString(want) {
				t.Fatalf("%q: %q at %d to %d makes %q, want %q", content, with, from, to, after[i].Document.Source.Text, want)
			}
		}
	})
}

// TestMacroLimit checks that repeated macros add at most the maximum size of a policy to
// all literals of a file together.
func TestMacroLimit(t *testing.T) {
	body := strings.Repeat("x", schema.MaxSize/8)
	for _, uses := range []string{
		`p = "{" ` + strings.Repeat("A ", 40) + `;`,
		strings.Repeat(`p = "{" A A A A;`, 10),
		`p = "{" ` + strings.Repeat("B ", 40) + `;`,
	} {
		content := "#define A \"" + body + "\"\n#define B \"" + body + "\" 1\n" + uses
		size := 0
		for _, m := range literals(&schema.Source{Name: "a.c", Text: content}, nil) {
			size += m.text.Len()
		}
		if most := schema.MaxSize + len(uses)*2; size > most {
			t.Errorf("%d bytes, want at most %d", size, most)
		}
	}
}

// TestDeepConditions checks that a part is skipped if any enclosing conditional is false,
// at any depth. It would take minutes if each line examined all enclosing conditionals.
func TestDeepConditions(t *testing.T) {
	const depth = 200_000
	for _, c := range []struct{ outer, inner, want string }{{"1", "1", "ac"}, {"1", "0", "bc"}, {"0", "1", "bc"}, {"0", "0", "bc"}} {
		content := "#if " + c.outer + "\np = \"{\\\"s\\\": [\"\n#if " + c.inner + "\n" + strings.Repeat("#if 1\n", depth) + "\"a\"\n" +
			strings.Repeat("#endif\n", depth) + "#else\n\"b\"\n#endif\n\"c\" \"]}\";\n#endif\n"
		if got, want := text(t, "a.c", content, Options{}), `{"s": [`+c.want+`]}`; got != want {
			t.Errorf("#if %s, #if %s: got %s, want %s", c.outer, c.inner, got, want)
		}
	}
}

// TestManyComments checks that each byte of a directive is read once. It would take minutes
// if each comment caused the directive to be read from its start.
func TestManyComments(t *testing.T) {
	content := "#define A " + strings.Repeat("/*\n*/ ", 1_000_000) + "\"1\"\np = \"{\\\"s\\\": [\" A \"]}\";\n"
	if got, want := text(t, "a.c", content, Options{}), `{"s": [1]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestFixTogether checks that a file with many mistakes is not checked once for each, and
// that a harmful fix does not prevent the others.
func TestFixTogether(t *testing.T) {
	var b strings.Builder
	b.WriteString(`p = "{\"s\": [`)
	for i := range 100 {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "{\\\"s%d\\\": {\\\"endpoint\\\": \\\"x.org\\\", \\\"port\\\": 443, \\\"protocol\\\": \\\"raw\\\", \\\"oportunistic\\\": true}}\"\n\"", i)
	}
	b.WriteString(`]}";`)
	for _, harm := range []bool{false, true} {
		checks := 0
		find := func(p *Policy) (found []schema.Diagnostic) {
			checks++
			for _, g := range p.Place(lint.Run(p.Document, rules.All(), lint.Options{})) {
				if !strings.Contains(g.Message, "oportunistic") {
					continue
				}
				if harm && g.Span.Position().Line == 50 {
					g.Fixes = []schema.Fix{{Edits: []schema.Edit{{Span: g.Span, NewText: `\"oportunistic2\"`}}, Safe: true}}
				}
				found = append(found, g)
			}
			return found
		}
		want, most := 100, 3
		if harm {
			want, most = 99, 40
		}
		got, fixed := Fix("a.c", []byte(b.String()), Options{}, false, find)
		if n := strings.Count(got, `\"opportunistic\"`); n != want || len(fixed) != want || checks > most {
			t.Errorf("harm %v: %d fixed, %d reported, %d checks, want %d and at most %d", harm, n, len(fixed), checks, want, most)
		}
	}
}
