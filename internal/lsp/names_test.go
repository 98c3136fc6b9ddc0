package lsp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/secure-streams/sspolicy/internal/certs"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/schema"
)

// TestMetadata checks that metadata is renamed in its declaration and all uses, fragments
// included, and in no other streamtype.
func TestMetadata(t *testing.T) {
	dir := t.TempDir()
	base, fragment := uriOf(filepath.Join(dir, "policy.json")), uriOf(filepath.Join(dir, "staging.json"))
	const text = `{"s": [
  {"a": {"endpoint": "${host}.example.com", "http_url": "x?${ci\u0074y}&${city}&${city}", "metadata": [{"city": "x-city"}, {"host": ""}]}},
  {"b": {"endpoint": "${city}", "metadata": [{"city": ""}]}}
]}`
	c := newClient(t)
	c.open(base, text)
	c.open(fragment, `{"x-sspolicy": {"base": "policy.json"}, "s": [{"a": {"http_url": "y/${city}"}}]}`)
	for _, at := range []positionParams{c.at(base, `{"ci|ty": "x-city"}`), c.at(base, `&${ci|ty}&`), c.at(fragment, "${ci|ty}")} {
		var edit workspaceEdit
		c.call("textDocument/rename", renameParams{at, "town"}, &edit)
		if n := len(edit.Changes[base]); n != 3 || len(edit.Changes[fragment]) != 1 {
			t.Errorf("%+v", edit)
		}
	}
	var prepared *prepareRenameResult
	c.call("textDocument/prepareRename", c.at(base, `&${ci|ty}&`), &prepared)
	if prepared == nil || prepared.Placeholder != "city" {
		t.Errorf("prepareRename: %+v", prepared)
	}
	for _, bad := range []string{"host", "", "a}b", "${x}", `q"`} {
		err := c.conn.Call(context.Background(), "textDocument/rename", renameParams{c.at(base, `&${ci|ty}&`), bad}, nil)
		if e := (*jsonrpc2.Error)(nil); !errors.As(err, &e) || e.Code != codeRequestFailed {
			t.Errorf("rename to %q: %v", bad, err)
		}
	}
	var at []location
	c.call("textDocument/definition", c.at(fragment, "${ci|ty}"), &at)
	if len(at) != 1 || at[0].URI != base {
		t.Errorf("definition: %+v", at)
	}
	var edit workspaceEdit
	c.call("textDocument/rename", renameParams{c.at(base, `&${ci|ty}&`), "town"}, &edit)
	c.apply(edit)
	if got, want := c.texts[base].content, strings.Replace(strings.Replace(text, "&${city}&${city}", "&${town}&${town}", 1), `{"city": "x-city"}`, `{"town": "x-city"}`, 1); got != want {
		t.Errorf("got %s", got)
	}
}

// TestVersions checks that hover lists the versions of lws that ignore a setting or a part
// of it.
func TestVersions(t *testing.T) {
	c := newClient(t)
	c.open(uri, `{"retry": [{"r": {"backoff": [1000, 2000]}}, {"one": {"backoff": [1000]}}], "s": [{"a": {"direct_proto_str": true, "retry": "r"}}]}`)
	for at, want := range map[string]string{
		`"direct_|proto_str"`:             "lws 4.1, 4.2 ignores direct_proto_str.",
		`"r": {"back|off"`:                "lws 4.4, 4.5, 5.0 keeps only the first wait",
		`"one": {"back|off": [1000]}}], `: "",
	} {
		got := c.hover(c.at(uri, at))
		if want == "" && strings.Contains(got, "when it reads") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q in it", at, got, want)
		}
	}
}

// TestConfigCompletion checks that completion of a configuration follows its schema, with
// the names of rules, groups and versions, and that the result has no findings.
func TestConfigCompletion(t *testing.T) {
	dir := t.TempDir()
	file := uriOf(filepath.Join(dir, ".sspolicy.json"))
	if err := os.WriteFile(filepath.Join(dir, "weather.json"), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	c.open(file, "{}")
	for _, test := range []struct {
		text, want, none, result string
	}{
		{`{|}`, "severity", "syntax", ""},
		{`{"lws": ["|"]}`, "5.0", "4.6", `{"lws": ["5.0"]}`},
		{`{"lws": ["5.0"], "|"}`, "severity", "lws", ""},
		{`{"severity": {"|"}}`, "unused-metadata", "syntax", ""},
		{`{"severity": {"unused-metadata": "|"}}`, "off", "none", `{"severity": {"unused-metadata": "error"}}`},
		{`{"with": ["|"]}`, "policy2c", "off", ""},
		{`{ // "x": [` + "\n" + `"fail-level": "|"}`, "none", "off", ""},
		{`{"ignore": [{"rule": "|"}]}`, "unused-metadata", "syntax", ""},
		{`{"ignore": [{"|"}]}`, "reason", "severity", ""},
		{`{"fragments": [{"|"}]}`, "paths", "severity", ""},
		{`{"fragments": [{"paths": ["lab/*.json"], "base": "|"}]}`, "weather.json", ".sspolicy.json", `{"fragments": [{"paths": ["lab/*.json"], "base": "weather.json"}]}`},
		{`{"nonsense": {"|"}}`, "", "reason", ""},
	} {
		before, after, _ := strings.Cut(test.text, "|")
		c.edit(file, 0, len(c.texts[file].content), before+after)
		var items []completionItem
		c.call("textDocument/completion", positionParams{documentParams{textDocument{URI: file}}, c.texts[file].position(len(before))}, &items)
		var labels []string
		for _, i := range items {
			labels = append(labels, i.Label)
		}
		if test.want != "" && !slices.Contains(labels, test.want) || slices.Contains(labels, test.none) {
			t.Errorf("%s: %q", test.text, labels)
		}
		if test.result != "" && len(items) > 0 {
			c.apply(workspaceEdit{map[string][]textEdit{file: {{items[0].TextEdit.Range, plainSnippet(items[0].TextEdit.NewText)}}}})
			if got := strings.ReplaceAll(c.texts[file].content, "$0", ""); got != test.result {
				t.Errorf("%s: after completion %s, want %s", test.text, got, test.result)
			}
		}
	}
}

// TestImport checks that certificates of files next to the policy are imported.
func TestImport(t *testing.T) {
	dir := t.TempDir()
	file := uriOf(filepath.Join(dir, "policy.json"))
	ca := testcert.New("Imported")
	for name, text := range map[string]string{"ca.pem": string(ca.PEM()), "broken.pem": "-----BEGIN CERTIFICATE-----\n", "key.pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t)
	c.open(file, station(t))
	titles := func(at string) (list []codeAction, titles string) {
		p := c.at(file, at)
		params := codeActionParams{documentParams: p.documentParams, Range: Range{p.Position, p.Position}}
		params.Context.Only = []string{"refactor"}
		c.call("textDocument/codeAction", params, &list)
		for _, a := range list {
			titles += a.Title + "\n"
		}
		return list, titles
	}
	if _, got := titles(`"po|rt": 443`); got != "" {
		t.Errorf("elsewhere: %s", got)
	}
	if _, got := titles(`"ce|rts"`); got != "Import ca.pem\n" {
		t.Errorf("in certs: %s", got)
	}
	list, got := titles(`"name": "fix|ture"`)
	if got != "Import ca.pem into trust store \"fixture\"\n" {
		t.Fatalf("in a trust store: %s", got)
	}
	c.apply(*list[0].Edit)
	d := schema.Parse("policy.json", []byte(c.texts[file].content))
	if stack := certs.Stack(d, "fixture"); !slices.Contains(stack, "imported") || schema.HasErrors(d.Syntax) {
		t.Errorf("%v in %s", stack, c.texts[file].content)
	}
	if _, got := titles(`"ce|rts"`); got != "" {
		t.Errorf("again: %s", got)
	}
}
