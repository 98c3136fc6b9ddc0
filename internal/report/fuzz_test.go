package report

import (
	"io"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/schema"
)

// FuzzWrite checks that all formats are valid for arbitrary texts and diagnostics.
func FuzzWrite(f *testing.F) {
	for _, d := range sample().Diagnostics {
		f.Add(d.Span.Source.Name, d.Span.Source.Text, d.Rule, d.Message, d.Span.Start, d.Span.End, uint8(d.Severity))
	}
	f.Add("", "\xff\xfe", "", "", -1, 1<<40, uint8(7))
	f.Add("//a\\b", "{\"a\"", "a\x00b", "\ufffe]]>", 3, 1, uint8(1))
	outs := outputs(f)
	f.Fuzz(func(t *testing.T, name, text, rule, message string, start, end int, n uint8) {
		src := &schema.Source{Name: name, Text: text}
		span := schema.Span{Source: src, Start: start, End: end}
		other := schema.Span{Source: src, Start: end / 2, End: start}
		d := schema.Diagnostic{
			Rule: rule, Severity: schema.Severity(n % 3), Span: span, Message: message,
			Related: []schema.Related{{Span: other, Message: rule}, {Span: span, Message: name}},
			Fixes:   []schema.Fix{{Message: message, Edits: []schema.Edit{{Span: other, NewText: text}, {Span: span}}}, {}},
		}
		e := d
		e.Span, e.Severity, e.Related, e.Fixes = other, schema.Error, nil, nil
		r := &Report{Files: []string{name, "b"}, Diagnostics: []schema.Diagnostic{d, e, d}, Fails: failing}
		for file, o := range outs {
			got := write(t, o, r)
			if err := valid(o.Format, got, r); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if o.Format == FormatText && !o.Color {
				checkText(t, string(got), r)
			}
		}
	})
}

// checkText checks that the content does not break lines, and that each excerpt has a mark.
func checkText(t *testing.T, text string, r *Report) {
	heads, excerpts, marks := 0, 0, 0
	for line := range strings.Lines(text) {
		gutter, rest, _ := strings.Cut(line, "|")
		switch {
		case strings.HasPrefix(line, "      | ") && strings.Trim(rest, " ~\n") == "^":
			marks++
		case strings.Trim(gutter, " 0123456789") == "" && strings.HasPrefix(rest, " ") && strings.HasPrefix(line, " "):
			excerpts++
		default:
			heads++
		}
		if strings.ContainsFunc(line[:len(line)-1], func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("control character in %q", line)
		}
	}
	want := 0
	for _, d := range r.Diagnostics {
		want += 1 + len(d.Related) + len(d.Fixes)
	}
	if heads != want || excerpts != marks || excerpts < len(r.Diagnostics) {
		t.Errorf("%d heads (want %d), %d excerpts, %d marks in\n%s", heads, want, excerpts, marks, text)
	}
}

// BenchmarkLongLine writes 10,000 diagnostics on one line of 1 MB.
func BenchmarkLongLine(b *testing.B) {
	const n = 10_000
	element := `{"stream":{"endpoint":"example.com","port":70000,"retry":"none","http_url":"/é"}},` + strings.Repeat(" ", 20)
	text := `{"s":[` + strings.Repeat(element, n) + `{}]}`
	for _, f := range Formats() {
		if f == FormatTemplate {
			continue
		}
		b.Run(string(f), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				src := &schema.Source{Name: "long.json", Text: text}
				r := &Report{Files: []string{"long.json"}}
				for i := range n {
					start := 6 + i*len(element) + strings.Index(element, "70000")
					r.Diagnostics = append(r.Diagnostics, schema.Diagnostic{
						Rule: "out-of-range", Severity: schema.Error, Span: schema.Span{Source: src, Start: start, End: start + 5},
						Message: "port must be 0 to 65535, not 70000",
						Related: []schema.Related{{Span: schema.Span{Source: src, Start: len(text) / 2, End: len(text)/2 + 1}, Message: "here"}},
					})
				}
				if err := (Output{Format: f}).Write(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
