package schema

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// syntaxSeeds are texts with each kind of syntax error, and some valid ones.
var syntaxSeeds = []string{
	``, ` `, `{}`, `{"a":1}`, `{"a" 1}`, `[`, `]`, `{"s":[{"a":{"port":80}}]}`, `{"a":[1,2,],}`, `{"a":[,1,,2]}`,
	"# c\n{\"a\":\"\\u00zz\"}", `{"s":[{"a":{}}}`, `{a:'b'}`, `{"s":[{"a":{}}}]}`, `{"a":"b`, `{"a":tru,"b":01}`,
	"{\"a\":\"x\n\",\"b\":2}", strings.Repeat("[", 100), `{"a":1} x`, `{"a"}`, `{"a":}`, `{"a":1 "b":2}`, `{:1}`,
	`{"a":[1 2 {"b":3}]}`, "{\"a\":1 // c\n}", `{/* c */}`, `{"a":"\x41\q"}`, "{\"a\":\"\t\"}", "\xff", "\xff\xfe{", "a\x00b",
	`{"a":{"b":[}]}`, `{"a":]}`, `{{"a":1}}`, "\xef\xbb\xbf{}", `{"a":-0012.5e3,"b":1.,"c":.5,"d":+1}`,
}

// FuzzParse checks that a document prints as its text, and that spans and edits are inside
// the text.
func FuzzParse(f *testing.F) {
	for _, s := range syntaxSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := Parse("f", text)
		if got := d.String(); got != string(text) {
			t.Fatalf("prints as %q, was %q", got, text)
		}
		if c := d.Clone(); c.String() != string(text) {
			t.Fatalf("the clone prints as %q, was %q", c.String(), text)
		}
		diags := append(d.Syntax, Validate(d)...)
		for _, g := range diags {
			if g.Span.Start < 0 || g.Span.End < g.Span.Start || g.Span.End > len(text) {
				t.Fatalf("span %d-%d outside the text: %s", g.Span.Start, g.Span.End, g.Message)
			}
			for _, fix := range g.Fixes {
				applyFix(t, string(text), fix)
			}
		}
		NewPolicy(d)
	})
}

// applyFix returns the text with a fix applied. It fails the test if the edits are
// not in order and inside the text.
func applyFix(t *testing.T, text string, f Fix) string {
	var b strings.Builder
	at := 0
	for _, e := range f.Edits {
		if e.Span.Start < at || e.Span.End > len(text) {
			t.Fatalf("edit of %d-%d after %d, of %d bytes", e.Span.Start, e.Span.End, at, len(text))
		}
		b.WriteString(text[at:e.Span.Start])
		b.WriteString(e.NewText)
		at = e.Span.End
	}
	b.WriteString(text[at:])
	return b.String()
}

func TestSyntax(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string // line:column rule, and part of the message
		tree string   // as sketch returns it
	}{
		{`{"a":1}`, nil, `{"a":1}`},
		{"{ # c } ]\n\"a\" : [ 1 , \"x\" ] # d\n} # e", nil, `{"a":[1,"x"]}`},
		{``, []string{`1:1 syntax the text is empty`}, `?`},
		{"\n  \n", []string{`3:1 syntax the text is empty`}, `?`},
		{`[]`, []string{`1:1 syntax a policy is a JSON object, not an array`}, `[]`},
		{`{"a":1`, []string{`1:7 syntax the text ends here, but the object or array around it is not closed`}, `{"a":1}`},
		{`{"a":[{"b":1`, []string{`1:13 syntax the 3 objects and arrays`}, `{"a":[{"b":1}]}`},
		{`{"a":1,}`, []string{`1:7 syntax a comma before "}"`}, `{"a":1}`},
		{`{"a":[1,]}`, []string{`1:8 lax-syntax a comma before "]"`}, `{"a":[1]}`},
		{`{"a":[{}}]}`, []string{`1:9 lax-syntax this "}" closes nothing`}, `{"a":[{}]}`},
		{`{"a":[{}}],"b":[{}}]}`, []string{`1:9 lax-syntax this "}" closes nothing`, `1:19 syntax this "}" closes nothing`}, `{"a":[{}],"b":[{}]}`},
		{`{"a":[}]}`, []string{`1:7 syntax "{" is missing here`}, `{"a":[]}`},
		{`{"a":[{}}`, []string{`1:9 syntax "]" is missing before this "}"`}, `{"a":[{}]}`},
		{`{"a":{"b":1],"c":2}}`, []string{`1:11 syntax "[" is missing here`}, `{"a":{"b":1,"c":2}}`},
		{`{"a":[1}`, []string{`1:8 syntax "]" is missing`}, `{"a":[1]}`},
		{`{"a""b":1}`, []string{`1:5 syntax ":" is missing after the key "a"`, `1:8 syntax a key is missing before ":"`, `1:9 syntax "1" is not a key in double quotes`, `1:9 syntax the key "1" has no value`}, `{"a":"b","1":?}`},
		{`{"a"; 1}`, []string{`1:5 syntax want ":" after a key, not ";"`}, `{"a":1}`},
		{`{"a":1 2}`, []string{`1:7 syntax "," is missing here, before "2"`, `1:8 syntax "2" is not a key in double quotes`, `1:8 syntax the key "2" has no value`}, `{"a":1,"2":?}`},
		{`{"a":1 "b":2,,"c":3}`, []string{`1:7 syntax "," is missing here, before "b"`, `1:14 syntax this comma follows nothing`}, `{"a":1,"b":2,"c":3}`},
		{`{"a" 1,"b":,"c"}`, []string{`1:5 syntax ":" is missing after the key "a"`, `1:12 syntax a value is missing before ","`, `1:13 syntax the key "c" has no value`}, `{"a":1,"b":?,"c":?}`},
		{`{a:1,'b':'x',"c":True,"d":nil}`, []string{`1:2 syntax write keys in double quotes: "a"`, `1:6 syntax write keys in double quotes: "b"`, `1:10 syntax write strings in double quotes: "x"`, `1:18 syntax True is written true`, `1:27 syntax "nil" is not a JSON value`}, `{"a":1,"b":!,"c":!,"d":!}`},
		{"{\"a\":1, // c\n\"b\":2}", []string{`1:9 syntax lws does not read "//" comments`}, `{"a":1,"b":2}`},
		{"{\"a\":\"x\n\"b\":2}", []string{`1:6 syntax the string is not closed on its line`}, `{"a":!,"b":2}`},
		{`{"a":"\x41\u12"}`, []string{`1:7 syntax \x is not a JSON escape`, `1:11 syntax \u needs four hexadecimal digits`}, `{"a":"\\x41\\u12"}`},
		{"{\"a\":\"\t\"}", []string{`1:7 syntax control character 0x09`}, `{"a":"\t"}`},
		{`{"a":007,"b":1.,"c":-0}`, []string{`1:6 lax-syntax a number does not start with a zero: write 7`, `1:14 syntax "1." is not a JSON value`}, `{"a":007,"b":!,"c":-0}`},
		{`{} {}`, []string{`1:4 syntax text after the end`}, `{}`},
		{"\xef\xbb\xbf{}", []string{`1:1 syntax the text starts with a byte order mark`}, `{}`},
		{"{\"é\":\"\xff\"}", []string{`1:7 syntax the byte 0xff is not UTF-8`}, `?`},
		{"{\x00}", []string{`1:2 syntax the file is not text`}, `?`},
		{"\xff\xfe{\x00", []string{`1:1 syntax the text is UTF-16`}, `?`},
		{`{"a":` + strings.Repeat(`[`, 70) + `}`, []string{`1:69 syntax nested more than 64 deep`}, `{"a":` + strings.Repeat("[", 63) + "!" + strings.Repeat("]", 63) + `}`},
	} {
		t.Run(fmt.Sprintf("%.30q", test.text), func(t *testing.T) {
			d := Parse("f", []byte(test.text))
			for i, g := range d.Syntax {
				p := g.Span.Position()
				got := fmt.Sprintf("%d:%d %s %s", p.Line, p.Column, g.Rule, g.Message)
				if i >= len(test.want) {
					t.Errorf("found %s", got)
					continue
				}
				at, message, _ := strings.Cut(test.want[i], " ")
				rule, message, _ := strings.Cut(message, " ")
				if !strings.HasPrefix(got, at+" "+rule+" ") || !strings.Contains(got, message) {
					t.Errorf("found %s, want %s", got, test.want[i])
				}
			}
			if len(d.Syntax) < len(test.want) {
				t.Errorf("not found: %q", test.want[len(d.Syntax):])
			}
			if diff := cmp.Diff(test.tree, sketch(&d.Root)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// sketch returns a value as compact JSON, with ? for a missing value and ! for an invalid
// one.
func sketch(v *Value) string {
	var parts []string
	switch v.Kind {
	case Missing:
		return "?"
	case Invalid:
		return "!"
	case ObjectKind:
		for _, m := range v.Object.Members {
			parts = append(parts, Quote(m.Key)+":"+sketch(&m.Value))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case ArrayKind:
		for _, e := range v.Array.Elems {
			parts = append(parts, sketch(&e.Value))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case String:
		return Quote(v.Text())
	}
	return v.Raw()
}

// TestFixes checks that repeated fixing gives a text without errors, if the parser offers a
// fix for each error.
func TestFixes(t *testing.T) {
	for _, text := range []string{
		`{"a":1,}`, `{"a":[1,]}`, `{"a":[{}}]}`, `{"s":[{}}`, `{"a":1 "b":2,,"c":3}`, `{"a" 1}`, `{a:'b',"c":True,"e":-007}`,
		`{"a":"\x41"}`, "{\"a\":\"\t\"}", "{\"a\":1 // c\n}",
	} {
		fixed := text
		for range 20 {
			d := Parse("f", []byte(fixed))
			if len(d.Syntax) == 0 {
				break
			}
			if len(d.Syntax[0].Fixes) == 0 {
				t.Errorf("%q: no fix for %s", fixed, d.Syntax[0].Message)
				break
			}
			fixed = applyFix(t, fixed, d.Syntax[0].Fixes[0])
		}
		if d := Parse("f", []byte(fixed)); len(d.Syntax) > 0 {
			t.Errorf("%q was fixed to %q, which has %s", text, fixed, d.Syntax[0].Message)
		}
	}
}

func TestSyntaxLimit(t *testing.T) {
	d := Parse("f", []byte("{"+strings.Repeat("@ ", 10000)))
	if n := len(d.Syntax); n != maxSyntax+1 {
		t.Errorf("%d errors, want %d", n, maxSyntax+1)
	}
	if d := Parse("f", make([]byte, MaxSize+1)); len(d.Syntax) != 1 || !strings.Contains(d.Syntax[0].Message, "16 MiB") {
		t.Errorf("text over the limit: %v", d.Syntax)
	}
}

func TestPosition(t *testing.T) {
	s := &Source{Name: "f", Text: "aé\n\nb"}
	for offset, want := range map[int]Position{-1: {1, 1}, 0: {1, 1}, 1: {1, 2}, 3: {1, 3}, 4: {2, 1}, 5: {3, 1}, 6: {3, 2}, 99: {3, 2}} {
		if got := s.Position(offset); got != want {
			t.Errorf("Position(%d) = %v, want %v", offset, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"port", "protocol", "http_method", "mqtt_qos"}
	for name, want := range map[string]string{
		"prot": "port", "Port": "port", "http-method": "http_method", "http_methd": "http_method", "mqtt qos": "mqtt_qos",
		"x": "", "completely": "", "": "", strings.Repeat("port", 100): "",
	} {
		if got := Nearest(name, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(`{"s":[` + strings.TrimSuffix(strings.Repeat(`{"a":{"endpoint":"example.com","port":443,"protocol":"h1","tls":true}},`, 1000), ",") + `]}`)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		Parse("f", text)
	}
}
