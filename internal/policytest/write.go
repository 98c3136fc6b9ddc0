package policytest

import (
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// Recorded returns the text of the file with the observed values instead of the expected
// ones, and the number of changed values. A test without expectations gets all of them.
// Tests that could not run, and those for several versions of lws with different results,
// are not changed.
func (f *File) Recorded(results []*Result) (text string, changed int) {
	byTest := map[*schema.Value][]*Result{}
	var order []*schema.Value
	for _, r := range results {
		if byTest[r.value] == nil {
			order = append(order, r.value)
		}
		byTest[r.value] = append(byTest[r.value], r)
	}
	var edits []schema.Edit
	for _, v := range order {
		edits = append(edits, record(byTest[v])...)
	}
	slices.SortFunc(edits, func(a, b schema.Edit) int { return a.Span.Start - b.Span.Start })
	return schema.ApplyEdits(f.Source, edits), len(edits)
}

// record returns the edits for a test, from its results for all versions of lws.
func record(results []*Result) (edits []schema.Edit) {
	first := results[0]
	if first.got == nil {
		return nil
	}
	agreed := func(f field) (string, bool) {
		value, ok := f.get(first.got)
		for _, r := range results[1:] {
			if r.got == nil {
				return "", false
			}
			other, has := f.get(r.got)
			ok = ok && has && toJSON(other) == toJSON(value)
		}
		return toJSON(value), ok
	}
	if first.expect == nil || len(first.expect.Members()) == 0 {
		return []schema.Edit{first.insert(agreed)}
	}
	for _, f := range fields {
		want := first.expectation(f.name)
		if want == nil {
			continue
		}
		value, ok := f.get(first.got)
		if _, same := agreed(f); !ok || !same {
			continue
		}
		switch {
		case len(f.compare(want, value)) == 0 && (f.kind != list || len(want.Elems()) > 0):
		case f.kind != pairs:
			if l, ok := value.([]string); ok && len(want.Elems()) > 0 && len(want.Elems()) < len(l) {
				value = l[:len(want.Elems())]
			}
			edits = append(edits, schema.Edit{Span: want.Span, NewText: toJSON(value)})
		default:
			headers := value.(map[string]string)
			for _, m := range want.Members() {
				text := "null"
				if header, ok := headers[strings.ToLower(m.Key)]; ok {
					text = toJSON(header)
				}
				if text != m.Value.Raw() {
					edits = append(edits, schema.Edit{Span: m.Value.Span, NewText: text})
				}
			}
		}
	}
	return edits
}

// insert returns the edit that adds all expectations to a test that has none.
func (r *Result) insert(agreed func(field) (string, bool)) schema.Edit {
	source := r.At.Source
	indent := "\n" + strings.Repeat(" ", source.Position(r.At.Start).Column-1)
	var b strings.Builder
	b.WriteString("{")
	comma := ""
	for _, f := range fields {
		if value, ok := agreed(f); ok && value != "{}" && (r.Fault == nil || f.name == "states") {
			b.WriteString(comma + indent + "    " + toJSON(f.name) + ": " + value)
			comma = ","
		}
	}
	b.WriteString(indent + "  }")
	if r.expect != nil {
		return schema.Edit{Span: r.expect.Span, NewText: b.String()}
	}
	members := r.value.Members()
	at := members[len(members)-1].Value.Span
	at.Start = at.End
	return schema.Edit{Span: at, NewText: "," + indent + "  \"expect\": " + b.String()}
}
