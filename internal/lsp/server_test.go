package lsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

const uri = "file:///policy.json"

// station returns a valid policy.
func station(t testing.TB) string {
	text, err := os.ReadFile("../../fixtures/weather.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTyping checks that findings follow the text, and disappear when it is closed.
func TestTyping(t *testing.T) {
	c := newClient(t)
	c.open(uri, station(t))
	c.rules(uri)
	c.replace(uri, `"port": 443`, `"port": 70443`)
	if d := c.rules(uri, "out-of-range")[0]; d.Range != c.texts[uri].span(c.find(uri, "70443"), c.find(uri, "70443")+5) || d.Severity != 1 {
		t.Errorf("got %+v", d)
	}
	// An unclosed string hides all other findings, until the text is repaired.
	c.replace(uri, `"port": 70443`, `"port`)
	c.syntax(uri)
	c.replace(uri, `"port`, `"port": 443`)
	c.rules(uri)
	c.close(uri)
	c.versions[uri] = 0
	c.await(uri, func(ds []diagnostic) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		last := c.published[uri][len(c.published[uri])-1]
		return last.Version == nil && len(ds) == 0
	})
	c.open(uri, "{")
	c.syntax(uri)
}

// TestBroken checks that a text with syntax errors is repaired and checked when it stays
// unchanged.
func TestBroken(t *testing.T) {
	c := newClient(t)
	text := strings.Replace(station(t), `"port": 443`, `"port: 70443`, 1)
	c.open(uri, text)
	c.rules(uri, "syntax", "out-of-range")
	var actions []codeAction
	c.call("textDocument/codeAction", codeActionParams{documentParams: documentParams{textDocument{URI: uri}},
		Range: c.texts[uri].span(0, len(text))}, &actions)
	i := slices.IndexFunc(actions, func(a codeAction) bool { return a.IsPreferred })
	c.apply(*actions[i].Edit)
	c.replace(uri, "70443", "443")
	c.rules(uri)
}

// TestOtherJSON checks that other JSON files have no findings.
func TestOtherJSON(t *testing.T) {
	c := newClient(t)
	c.open("file:///package.json", `{"name": "x"}`)
	c.rules("file:///package.json")
	c.open(uri, `{"name": "x"}`)
	c.rules(uri, "not-a-policy")
}

// TestPositionsOfFindings checks that emoji, \r\n and a byte order mark do not shift a
// finding.
func TestPositionsOfFindings(t *testing.T) {
	c := newClient(t)
	c.open(uri, "{\r\n \"release\": \"\U0001F600e\u0301\", \"x\U0001F600\": 1 }")
	ds := c.rules(uri, "empty-policy", "unknown-key")
	i := slices.IndexFunc(ds, func(d diagnostic) bool { return d.Code == "unknown-key" })
	if want := (Range{Position{1, 20}, Position{1, 25}}); ds[i].Range != want {
		t.Errorf("got %v, want %v", ds[i].Range, want)
	}
}

// TestConfiguration checks that the configuration, as in the editor, applies to findings,
// and that its mistakes are found.
func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	file, settings := uriOf(filepath.Join(dir, "policy.json")), uriOf(filepath.Join(dir, ".sspolicy.json"))
	c := newClient(t)
	c.open(file, strings.Replace(station(t), `"port": 443`, `"port": 443, "h2q_oflow_txcr": true`, 1))
	c.rules(file, "wrong-protocol")
	if err := os.WriteFile(filepath.Join(dir, ".sspolicy.json"), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	c.open(settings, `{"severity": {"wrong-protocol": "error", "x": "off"}}`)
	c.rules(settings, "config")
	c.await(file, func(ds []diagnostic) bool { return len(ds) == 1 && ds[0].Severity == 1 })
}

// TestOwnRules checks that rules of the project are checked, explained and suppressed like
// built-in ones, even while the configuration is edited.
func TestOwnRules(t *testing.T) {
	dir := t.TempDir()
	file, settings := uriOf(filepath.Join(dir, "policy.json")), uriOf(filepath.Join(dir, ".sspolicy.json"))
	if err := os.WriteFile(filepath.Join(dir, ".sspolicy.json"), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	c.open(settings, `{"rules": [{"id": "corp/tls", "target": "stream", "expression": "stream.tls && stream.port == 1", "at": "port", "why": "Ours."}]}`)
	c.rules(settings)
	c.open(file, station(t))
	c.await(file, func(ds []diagnostic) bool {
		return slices.ContainsFunc(ds, func(d diagnostic) bool { return d.Code == "corp/tls" })
	})
	at := c.at(file, `"port": 4|43`)
	if h := c.hover(at); !strings.Contains(h, "corp/tls") || !strings.Contains(h, "Ours.") {
		t.Errorf("hover: %s", h)
	}
	var actions []codeAction
	c.call("textDocument/codeAction", codeActionParams{documentParams: at.documentParams, Range: Range{at.Position, at.Position}}, &actions)
	if !slices.ContainsFunc(actions, func(a codeAction) bool { return a.Title == "Ignore corp/tls here, with a reason" }) {
		t.Errorf("actions: %+v", actions)
	}
	c.replace(settings, `stream.port == 1`, `stream.prt == 1`)
	c.rules(settings, "config")
	c.replace(settings, `stream.prt == 1`, `stream.port > 1`)
	c.rules(settings)
	c.await(file, func(ds []diagnostic) bool {
		return !slices.ContainsFunc(ds, func(d diagnostic) bool { return d.Code == "corp/tls" })
	})
}

// TestFragment checks that a fragment is checked with its base, both as in the editor.
func TestFragment(t *testing.T) {
	dir := t.TempDir()
	base, fragment := uriOf(filepath.Join(dir, "policy.json")), uriOf(filepath.Join(dir, "staging.json"))
	if err := os.WriteFile(filepath.Join(dir, "policy.json"), []byte(station(t)), 0o666); err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	c.open(fragment, `{"x-sspolicy": {"base": "policy.json"}, "s": [{"get_weather": {"retry": "default", "port": 8443}}]}`)
	c.rules(fragment)
	if h := c.hover(c.at(fragment, `po|rt`)); !strings.Contains(h, "In the base: `443`") {
		t.Errorf("hover: %s", h)
	}
	var at []location
	c.call("textDocument/definition", c.at(fragment, `"def|ault"`), &at)
	if len(at) != 1 || at[0].URI != base {
		t.Errorf("definition: %+v", at)
	}
	c.open(base, strings.ReplaceAll(station(t), `get_weather`, `get_climate`))
	c.rules(fragment, "overlay-unknown-streamtype")
	c.replace(base, `get_climate`, `get_weather`)
	c.rules(fragment)

	var edit workspaceEdit
	c.call("textDocument/rename", renameParams{c.at(fragment, `"def|ault"`), "gently"}, &edit)
	c.apply(edit)
	c.rules(fragment)
	c.rules(base)
	if got := strings.Count(c.texts[base].content+c.texts[fragment].content, `"gently"`); got != 3 {
		t.Errorf("%d names after the renaming", got)
	}
	c.replace(fragment, `policy.json`, `nothing.json`)
	c.rules(fragment, "config")
}

// TestConfiguredFragment checks that the configuration, as in the editor, determines which
// files are fragments.
func TestConfiguredFragment(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return uriOf(file)
	}
	const text = `{"s": [{"get_weather": {"retry": "default", "port": 8443}}]}`
	base, settings := write("policy.json", station(t)), write(".sspolicy.json", "{}")
	fragment := write("lab/policy.json", text)
	c := newClient(t)
	c.open(fragment, text)
	alone := func(ds []diagnostic) bool {
		return slices.ContainsFunc(ds, func(d diagnostic) bool { return d.Code == "missing-endpoint" })
	}
	c.await(fragment, alone)
	c.open(settings, `{"fragments": [{"paths": ["lab/*.json"], "base": "policy.json"}]}`)
	c.rules(settings)
	c.rules(fragment)
	if h := c.hover(c.at(fragment, `po|rt`)); !strings.Contains(h, "In the base: `443`") {
		t.Errorf("hover: %s", h)
	}
	c.open(base, strings.ReplaceAll(station(t), `get_weather`, `get_climate`))
	c.rules(fragment, "overlay-unknown-streamtype")
	c.replace(base, `get_climate`, `get_weather`)
	c.rules(fragment)

	// A fragment is renamed with its base even if it is not open.
	c.notify("textDocument/didClose", documentParams{textDocument{URI: fragment}})
	var edit workspaceEdit
	c.call("textDocument/rename", renameParams{c.at(base, `"get_|weather"`), "get_climate"}, &edit)
	if len(edit.Changes[fragment]) != 1 || len(edit.Changes[base]) == 0 {
		t.Errorf("rename: %+v", edit)
	}
	c.open(fragment, text)
	c.rules(fragment)

	c.replace(settings, `"policy.json"`, `"nothing.json"`)
	ds := c.rules(fragment, "config")
	if len(ds[0].RelatedInformation) != 1 || ds[0].RelatedInformation[0].Location.URI != settings {
		t.Errorf("a missing base: %+v", ds)
	}
	for at, want := range map[string]string{
		`"frag|ments"`: "fragments over a base policy", `"ba|se"`: "The base policy of the fragments", `"noth|ing.json"`: "The base policy of the fragments",
	} {
		if h := c.hover(c.at(settings, at)); !strings.Contains(h, want) {
			t.Errorf("hover at %s: %q", at, h)
		}
	}
	c.replace(settings, `{"fragments"`, `{"severity": {"backoff-cut": "off"}, "fragments"`)
	if h := c.hover(c.at(settings, `"backoff|-cut"`)); !strings.Contains(h, "**backoff-cut**") {
		t.Errorf("hover at a rule: %q", h)
	}
	c.replace(settings, `lab/*.json`, `*.txt`)
	c.await(fragment, alone)
}

// TestWatchedFiles checks that a notification of a changed file has an effect.
func TestWatchedFiles(t *testing.T) {
	dir := t.TempDir()
	file := uriOf(filepath.Join(dir, "policy.json"))
	c := newClient(t)
	<-c.watching
	c.open(file, strings.Replace(station(t), `"port": 443`, `"port": 443, "h2q_oflow_txcr": true`, 1))
	c.rules(file, "wrong-protocol")
	if err := os.WriteFile(filepath.Join(dir, ".sspolicy.json"), []byte(`{"severity": {"wrong-protocol": "off"}}`), 0o666); err != nil {
		t.Fatal(err)
	}
	c.notify("workspace/didChangeWatchedFiles", map[string]any{"changes": []any{}})
	c.rules(file)
}

func (c *client) hover(p positionParams) string {
	var h *hover
	c.call("textDocument/hover", p, &h)
	if h == nil {
		return ""
	}
	return h.Contents.Value
}

const example = `{
  "retry": [ { "default": { "backoff": [ 1000, 2000 ], "conceal": 5, "jitterpc": 20, "svalidping": 30, "svalidhup": 35 } } ],
  # sspolicy:ignore backoff-cut -- because
  "certs": [ { "root": "bm90IGEgY2VydA==" } ],
  "trust_stores": [ { "name": "own", "stack": [ "root" ] }, { "name": "owner", "stack": "root" } ],
  "s": [
    { "a": { "endpoint": "example.com", "port": 443, "protocol": "h1", "tls": true, "http_method": "GET",
             "http_url": "x/${id}", "metadata": [ { "id": "" } ], "timeout_ms": 90000,
             "tls_trust_store": "own", "retry": "default", "opportunistic": true } },
    { "b": { "endpoint": "http://example.org:81/p?q", "protocol": "mqtts", "port": 1, "mqtt_topic": "t", "retry": "none" } }
  ]
}
`

func TestHover(t *testing.T) {
	c := newClient(t)
	c.open(uri, example)
	c.await(uri, func(ds []diagnostic) bool { return len(ds) > 0 })
	for at, want := range map[string]string{
		`"por|t": 443`:            "TCP port to connect to",
		`"port": 44|3`:            "0 to 65535",
		`"timeout_ms": 90|000`:    "90000 ms is 1m30s.",
		`"tls_trust_store": "ow|`: `**trust store "own"**`,
		`"stack": [ "ro|ot`:       "not a certificate",
		`"name": "own|er`:         `**trust store "owner"**`,
		`"ret|ry": [`:             "**retry**",
		`"retry": "def|ault"`:     `"jitterpc":20`,
		`"retry": "non|e"`:        `No backoff scheme "none"`,
		`ignore backoff|-cut`:     "# backoff-cut",
		`"mqt|ts"`:                "it probably means protocol mqtt, tls true",
		`"root": "bm9|0IG`:        "certificate \"root\"",
	} {
		if got := c.hover(c.at(uri, at)); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q in it", at, got, want)
		}
	}
	for _, at := range []string{"{|\n  \"retry", `]|,` + "\n  # ss"} {
		if got := c.hover(c.at(uri, at)); got != "" {
			t.Errorf("%q: got %q", at, got)
		}
	}
	// lws compares names of trust stores up to the length of the reference.
	if got := c.hover(c.at(uri, `"tls_trust_store": "ow|n`)); !strings.Contains(got, `lws takes trust store "owner", in line 5`) {
		t.Errorf("got %q", got)
	}
}

func TestCompletion(t *testing.T) {
	c := newClient(t)
	c.open(uri, example)
	for _, test := range []struct {
		old, with  string // with has "|" at the cursor
		want, none string // labels
		result     string // the line after the first label of want is accepted, if not empty
	}{
		{`"timeout_ms": 90000,`, `"ti|`, "timeout_ms,http_cookies", "port,mqtt_topic,server_cert", `"timeout_ms": $0,`},
		{`"timeout_ms": 90000,`, `tim|`, "timeout_ms", "port", `"timeout_ms": $0,`},
		{`"mqtt_topic": "t",`, `"mq|",`, "mqtt_topic,mqtt_qos", "http_url,retry", `"mqtt_topic": "$0",`},
		{`"mqtt_topic": "t",`, `"mq|": "t",`, "mqtt_topic", "", `"mqtt_topic"$0: "t",`},
		{`"tls": true`, `"tls": |`, "true,false", "", `"tls": true$0`},
		{`"h1"`, `"|"`, "h1,h3,mqtt", "GET", `"protocol": "h1"$0`},
		{`"GET"`, `|`, "GET,POST", "", ""},
		{`"own", "retry"`, `"|", "retry"`, "own,owner", "root,default", `"tls_trust_store": "own"$0`},
		{`"retry": "default"`, `"retry": "|"`, "default", "own", ""},
		{`x/${id}`, `x/${|`, "id", "default", `"http_url": "x/${id}"`},
		{`x/${id}`, `x/${i|}y`, "id", "default", `"http_url": "x/${id}y"`},
		{`[ "root" ]`, `[ "r|" ]`, "root", "own", ""},
		{`{ "name": "owner", "stack": "root" }`, `|`, "trust store", "", ""},
		{`{ "name": "owner", "stack": "root" }`, `{ "|" }`, "name,stack", "", ""},
		{`"conceal": 5`, `"con|`, "conceal,svalidping", "backoff,port", ""},
		{`{ "id": "" }`, `{ "|" }`, "", "port", ""},
		{`{ "b": {`, `| { "b": {`, "h1 stream,mqtt stream,server", "certificate", ""},
		{`{ "b": {`, `{ "|", "b": {`, "h1 stream,mqtt stream,server", "certificate", ""},
		{`# sspolicy`, `# ssp|olicy`, "", "certs", ""},
		{`  "s": [`, `"re|` + "\n" + `  "s": [`, "release,product", "certs,port", ""},
	} {
		before, after, _ := strings.Cut(test.with, "|")
		c.replace(uri, test.old, before+after)
		position := c.texts[uri].position(strings.Index(c.texts[uri].content, before+after) + len(before))
		if i := strings.Index(example, test.old); i >= 0 {
			position = c.texts[uri].position(i + len(before))
		}
		var items []completionItem
		c.call("textDocument/completion", positionParams{documentParams{textDocument{URI: uri}}, position}, &items)
		label := func(name string) int {
			return slices.IndexFunc(items, func(i completionItem) bool { return i.Label == name })
		}
		split := func(list string) []string {
			return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
		}
		for _, name := range split(test.want) {
			if label(name) < 0 {
				t.Errorf("%s: %s is not offered", test.with, name)
			}
		}
		for _, name := range split(test.none) {
			if label(name) >= 0 {
				t.Errorf("%s: %s is offered", test.with, name)
			}
		}
		if test.result != "" && !t.Failed() {
			e := items[label(split(test.want)[0])].TextEdit
			content := c.texts[uri].content
			from, to := c.texts[uri].offset(e.Range.Start), c.texts[uri].offset(e.Range.End)
			got := content[:from] + e.NewText + content[to:]
			if !strings.Contains(got, test.result) {
				t.Errorf("%s: %s makes\n%s", test.with, split(test.want)[0], got)
			}
		}
		c.edit(uri, 0, len(c.texts[uri].content), example)
	}
}

// TestSkeletons checks that each skeleton is valid, together with what it refers to.
func TestSkeletons(t *testing.T) {
	for _, k := range skeletons {
		sections := map[schema.Section]string{schema.Retry: `{ "default": { "backoff": [ 1000, 2000 ], "conceal": 5, "jitterpc": 20, "svalidping": 30, "svalidhup": 35 } }`}
		text := plainSnippet(k.text)
		if keyedSections[k.section] {
			text = "{ " + text + " }"
		}
		sections[k.section] = text
		var b strings.Builder
		b.WriteString(`{ "release": "1"`)
		for _, s := range []schema.Section{schema.Retry, schema.Certs, schema.TrustStores, schema.Metrics, schema.Auth, schema.Streams} {
			if sections[s] != "" {
				fmt.Fprintf(&b, ", %q: [ %s ]", s, sections[s])
			}
		}
		b.WriteString(" }")
		d := schema.Parse(k.label, []byte(b.String()))
		for _, g := range lint.Run(d, rules.All(), lint.Options{}) {
			switch {
			case k.section != schema.Streams && strings.HasPrefix(g.Rule, "unused-"), g.Rule == "empty-policy":
			case k.section == schema.Certs || k.section == schema.TrustStores || k.section == schema.Auth: // what they refer to is missing
			case g.Severity > schema.Info:
				t.Errorf("%s: %s: %s [%s]", k.label, d, g.Message, g.Rule)
			}
		}
	}
}

func TestNavigation(t *testing.T) {
	c := newClient(t)
	c.open(uri, example)
	var at []location
	c.call("textDocument/definition", c.at(uri, `"retry": "def|ault"`), &at)
	if len(at) != 1 || at[0].Range.Start != c.at(uri, `[ { |"default": {`).Position {
		t.Errorf("definition: %+v", at)
	}
	c.call("textDocument/references", referenceParams{positionParams: c.at(uri, `{ "ro|ot": "bm`)}, &at)
	if len(at) != 2 {
		t.Errorf("references: %+v", at)
	}
	var marks []documentHighlight
	c.call("textDocument/documentHighlight", c.at(uri, `{ "ro|ot": "bm`), &marks)
	if len(marks) != 3 {
		t.Errorf("highlights: %+v", marks)
	}
	var prepared *prepareRenameResult
	c.call("textDocument/prepareRename", c.at(uri, `"retry": "def|ault"`), &prepared)
	if prepared == nil || prepared.Placeholder != "default" {
		t.Errorf("prepareRename: %+v", prepared)
	}
	c.call("textDocument/prepareRename", c.at(uri, `"por|t": 443`), &prepared)
	if prepared != nil {
		t.Errorf("prepareRename of a key: %+v", prepared)
	}
	for _, name := range []string{"", "owner", strings.Repeat("x", 254)} {
		err := c.conn.Call(context.Background(), "textDocument/rename", renameParams{c.at(uri, `"tls_trust_store": "ow|n"`), name}, nil)
		if e := (*jsonrpc2.Error)(nil); !errors.As(err, &e) || e.Code != codeRequestFailed {
			t.Errorf("rename to %.10q: %v", name, err)
		}
	}
	var edit workspaceEdit
	c.call("textDocument/rename", renameParams{c.at(uri, `"retry": "def|ault"`), `a"b`}, &edit)
	c.apply(edit)
	if n := strings.Count(c.texts[uri].content, `"a\"b"`); n != 2 {
		t.Errorf("after the renaming:\n%s", c.texts[uri].content)
	}
}

func TestOutline(t *testing.T) {
	c := newClient(t)
	c.open(uri, example)
	doc := documentParams{textDocument{URI: uri}}
	var symbols []documentSymbol
	c.call("textDocument/documentSymbol", doc, &symbols)
	var b strings.Builder
	for _, s := range symbols {
		fmt.Fprintf(&b, "%s:", s.Name)
		for _, d := range s.Children {
			fmt.Fprintf(&b, " %s", d.Name)
			if comparePositions(d.Range.Start, d.SelectionRange.Start) > 0 || comparePositions(d.SelectionRange.End, d.Range.End) > 0 {
				t.Errorf("%s: the selection is not in the range", d.Name)
			}
		}
		b.WriteByte('\n')
	}
	if want := "retry: default\ncerts: root\ntrust_stores: own owner\ns: a b\n"; b.String() != want {
		t.Errorf("got %s, want %s", b.String(), want)
	}
	var folds []foldingRange
	c.call("textDocument/foldingRange", doc, &folds)
	if len(folds) != 3+1 {
		t.Errorf("folding: %+v", folds)
	}
	var tokens semanticTokens
	c.call("textDocument/semanticTokens/full", doc, &tokens)
	if want := []uint32{2, 2, 40, 0, 0}; !slices.Equal(tokens.Data, want) {
		t.Errorf("tokens: %v", tokens.Data)
	}
	var hints []inlayHint
	c.call("textDocument/inlayHint", inlayHintParams{doc, c.texts[uri].span(0, len(example))}, &hints)
	var labels []string
	for _, h := range hints {
		labels = append(labels, h.Label)
	}
	if want := []string{"1s–1.2s, 2s–2.4s", "→ https://example.com:443/x/${id}", "→ mqtt://example.org:81/p?q"}; !slices.Equal(labels, want) {
		t.Errorf("hints: %q", labels)
	}
}

// TestActions checks that fixes, ignore comments and formatting have their effect.
func TestActions(t *testing.T) {
	c := newClient(t)
	text := strings.Replace(station(t), `"opportunistic": true`, `"oportunistic": true, "h2q_oflow_txcr": true`, 1)
	c.open(uri, text)
	c.rules(uri, "unknown-key", "wrong-protocol")
	actions := func(at string, only ...string) (list []codeAction) {
		p := codeActionParams{documentParams: documentParams{textDocument{URI: uri}}}
		if p.Range = c.texts[uri].span(0, len(c.texts[uri].content)); at != "" {
			position := c.at(uri, at).Position
			p.Range = Range{position, position}
		}
		p.Context.Only = only
		c.call("textDocument/codeAction", p, &list)
		return list
	}
	take := func(list []codeAction, title string) {
		t.Helper()
		i := slices.IndexFunc(list, func(a codeAction) bool { return regexp.MustCompile(title).MatchString(a.Title) })
		if i < 0 {
			t.Fatalf("no %s in %+v", title, list)
		}
		c.apply(*list[i].Edit)
	}
	take(actions(`"h2q|_oflow_txcr"`), "Ignore wrong-protocol")
	c.rules(uri, "unknown-key")
	if list := actions("", "source.fixAll"); len(list) != 1 {
		t.Errorf("only fixAll: %+v", list)
	}
	take(actions("", "source"), "safe")
	c.rules(uri)

	c.edit(uri, 0, len(c.texts[uri].content), strings.ReplaceAll(station(t), "  ", ""))
	var edits []textEdit
	c.call("textDocument/formatting", documentParams{textDocument{URI: uri}}, &edits)
	c.apply(workspaceEdit{map[string][]textEdit{uri: edits}})
	want, err := schema.Format(schema.Parse("", []byte(station(t))))
	if got := c.texts[uri].content; err != nil || got != want {
		t.Errorf("formatted: %v\n%s", err, got)
	}
}

// TestC checks the findings and fixes of policies in a C file.
func TestC(t *testing.T) {
	const file = "file:///main.c"
	c := newClient(t)
	c.open(file, "const char *p =\n\t\"{\\\"s\\\": [{\\\"a\\\": {\\\"oportunistic\\\": true, \\\"endpoint\\\": \\\"x\\\", \\\"port\\\": \" P \",\"\n"+
		"\"\\\"http_method\\\": \\\"GET\\\", \\\"http_url\\\": \\\"\\\", \\\"tls\\\": true}}]}\";")
	unknown := func(ds []diagnostic) bool {
		return slices.ContainsFunc(ds, func(d diagnostic) bool {
			return d.Code == "unknown-key" && c.texts[file].content[c.texts[file].offset(d.Range.Start):c.texts[file].offset(d.Range.End)] == `\"oportunistic\"`
		})
	}
	c.await(file, unknown)
	if got := c.hover(c.at(file, "oport|unistic")); got != "" {
		t.Errorf("hover: %s", got)
	}
	var list []codeAction
	at := c.at(file, "oport|unistic")
	c.call("textDocument/codeAction", codeActionParams{documentParams: at.documentParams, Range: Range{at.Position, at.Position}}, &list)
	if len(list) != 1 {
		t.Fatalf("actions: %+v", list)
	}
	c.replace(file, "const char *p =", "const char *p = // sspolicy:ignore unknown-key -- the updater reads it")
	c.await(file, func(ds []diagnostic) bool { return len(ds) > 0 && !unknown(ds) })
	c.replace(file, " // sspolicy:ignore unknown-key -- the updater reads it", "")
	c.await(file, unknown)
	c.apply(*list[0].Edit)
	c.await(file, func(ds []diagnostic) bool { return len(ds) > 0 && !unknown(ds) })
}

// TestLifecycle checks that requests outside of a session, unknown ones and invalid ones
// are rejected, and the server continues.
func TestLifecycle(t *testing.T) {
	c := connect(t)
	code := func(method string, params any) int64 {
		err := c.conn.Call(context.Background(), method, params, nil)
		if e, ok := errors.AsType[*jsonrpc2.Error](err); ok {
			return e.Code
		}
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		return 0
	}
	for _, step := range []struct {
		method string
		params string
		want   int64
	}{
		{"textDocument/hover", `{}`, codeNotInitialized},
		{"initialize", `7`, jsonrpc2.CodeInvalidParams},
		{"initialize", `{}`, 0},
		{"initialize", `{}`, jsonrpc2.CodeInvalidRequest},
		{"textDocument/hover", `[1]`, jsonrpc2.CodeInvalidParams},
		{"textDocument/hover", `{"textDocument":{"uri":"file:///unknown"},"position":{"line":1,"character":1}}`, 0},
		{"textDocument/nothing", `{}`, jsonrpc2.CodeMethodNotFound},
		{"shutdown", `null`, 0},
		{"textDocument/hover", `{}`, jsonrpc2.CodeInvalidRequest},
	} {
		if got := code(step.method, json.RawMessage(step.params)); got != step.want {
			t.Errorf("%s %s: got %d, want %d", step.method, step.params, got, step.want)
		}
	}
	c.notify("exit", nil)
	if err := <-c.done; err != nil {
		t.Error(err)
	}
}

// TestLeave checks that the server ends when the client disconnects.
func TestLeave(t *testing.T) {
	c := connect(t)
	c.call("initialize", struct{}{}, nil)
	c.open(uri, strings.Repeat("{", 100))
	if err := c.conn.Close(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	if err := <-c.done; !errors.Is(err, ErrExit) {
		t.Errorf("Serve: %v", err)
	}
}

// TestCancel checks that a cancelled request is answered.
func TestCancel(t *testing.T) {
	c := newClient(t)
	c.open(uri, example)
	for i := range 200 {
		id := jsonrpc2.ID{Num: uint64(1000 + i)}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		w, err := c.conn.DispatchCall(ctx, "textDocument/completion", c.at(uri, `"por|t": 443`), jsonrpc2.PickID(id))
		if err != nil {
			t.Fatal(err)
		}
		c.notify("$/cancelRequest", map[string]any{"id": id})
		var items []completionItem
		err = w.Wait(ctx, &items)
		if e, ok := errors.AsType[*jsonrpc2.Error](err); err != nil && (!ok || e.Code != codeRequestCancelled) {
			t.Fatalf("got %v", err)
		}
		cancel()
	}
}
