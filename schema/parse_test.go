package schema

import (
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"a":1}`, `{"a" 1}`, `[`, `{"s":[{"a":{"port":80}}]}`, `{"a":[1,2,],}`, "# c\n{\"a\":\"\\u00zz\"}", `{"s":[{"a":{}}}`, `{a:'b'}`, `{"a":{}}}]}`, `{"a":"b`, `{"a":tru,"b":01}`, "{\"a\":\"x\n\",\"b\":2}", strings.Repeat("[", 100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := Parse("f", text)
		if got := d.String(); got != string(text) {
			t.Fatalf("prints as %q, was %q", got, text)
		}
		for _, g := range d.Syntax {
			if g.Span.Start < 0 || g.Span.End < g.Span.Start || g.Span.End > len(text) {
				t.Fatalf("span %d-%d outside of the text: %s", g.Span.Start, g.Span.End, g.Message)
			}
		}
	})
}
