package lsp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLenses checks that the server offers only lenses whose commands the client supports.
func TestLenses(t *testing.T) {
	dir := t.TempDir()
	base, fragment := filepath.Join(dir, "policy.json"), filepath.Join(dir, "staging.json")
	text := station(t)
	for file, content := range map[string]string{base: text, fragment: `{"x-sspolicy": {"base": "policy.json"}, "s": [{"get_weather": {"port": 1}}]}`} {
		if err := os.WriteFile(file, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		commands string
		want     string
	}{
		{`[]`, ""},
		{`["sspolicy.run"]`, "Run"},
		{`["sspolicy.run", "sspolicy.overlays", "other"]`, "Run, 1 overlay"},
	} {
		c := connect(t)
		c.call("initialize", json.RawMessage(`{"capabilities": {}, "initializationOptions": {"commands": `+tt.commands+`}}`), nil)
		c.notify("initialized", struct{}{})
		c.open(uriOf(base), text)
		c.open(uriOf(fragment), `{"x-sspolicy": {"base": "policy.json"}, "s": [{"get_weather": {"port": 1}}]}`)
		var lenses, others []codeLens
		c.call("textDocument/codeLens", documentParams{textDocument{URI: uriOf(base)}}, &lenses)
		c.call("textDocument/codeLens", documentParams{textDocument{URI: uriOf(fragment)}}, &others)
		var titles []string
		for _, l := range lenses {
			titles = append(titles, l.Command.Title)
			start := c.find(uriOf(base), `"get_weather"`)
			if l.Range != c.texts[uriOf(base)].span(start, start+len(`"get_weather"`)) {
				t.Errorf("%s is at %v", l.Command.Title, l.Range)
			}
		}
		if got := strings.Join(titles, ", "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.commands, got, tt.want)
		}
		if run := strings.Contains(tt.want, "Run"); len(others) > 1 || run != (len(others) == 1) || run && others[0].Command.Title != "Run" {
			t.Errorf("%s: the fragment has %v", tt.commands, others)
		}
		if n := len(lenses); n > 1 {
			places, err := json.Marshal(lenses[n-1].Command.Arguments[2])
			if err != nil || !strings.Contains(string(places), uriOf(fragment)) {
				t.Errorf("%s, %v", places, err)
			}
		}
		c.end()
	}
}

// TestSettings checks that the lws versions of the editor's settings apply unless the
// configuration sets others.
func TestSettings(t *testing.T) {
	old := strings.Replace(station(t), `"port": 443`, `"port": 443, "direct_proto_str": true`, 1)
	has := func(ds []diagnostic) bool {
		return slices.ContainsFunc(ds, func(d diagnostic) bool { return d.Code == "unsupported-version" })
	}
	c := connect(t)
	c.call("initialize", json.RawMessage(`{"capabilities": {}, "initializationOptions": {"lws": ["4.1"]}}`), nil)
	c.notify("initialized", struct{}{})
	c.open(uri, old)
	c.await(uri, has)
	c.notify("workspace/didChangeConfiguration", json.RawMessage(`{"settings": {"sspolicy": {"lws": ["5.0"]}}}`))
	c.rules(uri)
	c.notify("workspace/didChangeConfiguration", json.RawMessage(`{"settings": null}`))
	c.rules(uri)
	c.notify("workspace/didChangeConfiguration", json.RawMessage(`{"settings": {"sspolicy": {"lws": ["4.1", "9"]}}}`))
	c.await(uri, has)
	if !strings.Contains(c.logs.String(), `unknown lws version "9"`) {
		t.Errorf("log: %s", c.logs)
	}
	c.logs.Reset()
	c.end()
}
