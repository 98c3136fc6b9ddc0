package report

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"text/template"
)

// ParseTemplate parses a template for FormatTemplate. Its data is the list of
// diagnostics with the fields of FormatJSON. It can use the function json besides those
// of text/template.
func ParseTemplate(text string) (*template.Template, error) {
	return template.New("--template").Option("missingkey=error").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			var b strings.Builder
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			err := e.Encode(v)
			return strings.TrimSuffix(b.String(), "\n"), err
		},
	}).Parse(text)
}

func writeTemplate(w io.Writer, r *Report, t *template.Template) error {
	diagnostics, err := plain(newJSONDiagnostics(r.Diagnostics))
	if err != nil {
		return err
	}
	return t.Execute(w, diagnostics)
}

// plain returns a value as maps and slices, like its JSON. Numbers are integers.
func plain(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var p any
	if err := d.Decode(&p); err != nil {
		return nil, err
	}
	return integers(p), nil
}

func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			v[key] = integers(v[key])
		}
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case json.Number:
		n, _ := v.Int64() // all numbers are integers
		return int(n)
	}
	return v
}
