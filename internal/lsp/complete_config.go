package lsp

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// A configNode is a node of the JSON Schema of configurations.
type configNode struct {
	Type        string                 `json:"type"`
	Description string                 `json:"description"`
	Enum        []string               `json:"enum"`
	Properties  map[string]*configNode `json:"properties"`
	Items       *configNode            `json:"items"`
	Additional  json.RawMessage        `json:"additionalProperties"` // a schema or a boolean
}

var configSchema = sync.OnceValue(func() *configNode {
	n := &configNode{}
	if err := json.Unmarshal([]byte(config.JSONSchema), n); err != nil {
		panic(err) // a test covers it
	}
	return n
})

// value returns the schema of the value of a key, or nil.
func (n *configNode) value(key string) *configNode {
	if of := n.Properties[key]; of != nil {
		return of
	}
	var other configNode
	if json.Unmarshal(n.Additional, &other) != nil {
		return nil
	}
	return &other
}

// isConfig reports whether the document is a configuration.
func (snap *snapshot) isConfig() bool { return filepath.Base(snap.file) == config.Name }

// hoverConfig describes the setting or rule at an offset of a configuration.
func (s *server) hoverConfig(snap *snapshot, offset int) (any, error) {
	d, _, _ := config.Document(snap.file, []byte(snap.text.content))
	n, at, ok := configSchema().at(&d.Root, offset)
	if !ok {
		return nil, nil
	}
	text := markdown(n.Description)
	if rule := s.configFor(snap).Lookup(schema.Unquote(at.Text())); rule != nil {
		text = ruleText(rule)
	}
	if text == "" {
		return nil, nil
	}
	r := snap.span(at)
	return hover{markup{"markdown", text}, &r}, nil
}

// at returns the schema of the setting at an offset, and the span of its name or value.
func (n *configNode) at(v *schema.Value, offset int) (*configNode, schema.Span, bool) {
	if n == nil || !holds(v.Span, offset) {
		return nil, schema.Span{}, false
	}
	for _, m := range v.Members() {
		if of := n.value(m.Key); of != nil && holds(m.Name.Span, offset) {
			return of, m.Name.Span, true
		} else if at, span, ok := of.at(&m.Value, offset); ok {
			return at, span, true
		}
	}
	for _, e := range v.Elems() {
		if at, span, ok := n.Items.at(&e.Value, offset); ok {
			return at, span, true
		}
	}
	return n, v.Span, v.Kind != schema.ObjectKind && v.Kind != schema.ArrayKind
}

// config adds the completions at the cursor of a configuration.
func (o *completer) config() {
	n, path := configSchema(), ""
	frames := o.cursor.frames
	for _, f := range frames[:len(frames)-1] {
		if f.bracket == '[' {
			n = n.Items
		} else {
			n, path = n.value(f.key), path+"/"+f.key
		}
		if n == nil {
			return
		}
	}
	in := &frames[len(frames)-1]
	if in.bracket == '{' && !in.value {
		o.configKeys(n, path, in)
		return
	}
	if in.bracket == '[' {
		n = n.Items
	} else {
		n, path = n.value(in.key), path+"/"+in.key
	}
	if n == nil {
		return
	}
	for _, value := range slices.Concat(n.Enum, o.configValues(path)) {
		o.add(completionItem{Label: value, Kind: kindEnum, SortText: fmt.Sprintf("%03d", len(o.items))}, schema.Quote(value), "")
	}
}

// configKeys adds the keys that an object of a configuration lacks.
func (o *completer) configKeys(n *configNode, path string, in *frame) {
	var keys []string
	for key := range n.Properties {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if path == "/severity" {
		keys = slices.Concat(o.rules(), rules.Groups())
	}
	for _, key := range keys {
		of := n.value(key)
		if of == nil || slices.Contains(in.keys, key) {
			continue
		}
		before, after := schema.Quote(key)+": ", ""
		switch of.Type {
		case "string":
			before, after = before+`"`, `"`
		case "array":
			before, after = before+"[", "]"
		case "object":
			before, after = before+"{", "}"
		}
		item := completionItem{Label: key, Kind: kindProperty, Detail: of.Type, SortText: fmt.Sprintf("%03d", len(o.items))}
		if text := of.Description; text != "" && path != "/severity" {
			item.Documentation = &markup{"markdown", markdown(text)}
		}
		o.add(item, before, after)
	}
}

// configValues returns string values of a path that the schema does not list.
func (o *completer) configValues(path string) (list []string) {
	switch path {
	case "/lws":
		for _, v := range slices.Backward(schema.Versions) {
			list = append(list, v.String())
		}
	case "/with":
		return rules.Groups()
	case "/ignore/rule":
		return o.rules()
	case "/fragments/base":
		entries, _ := os.ReadDir(filepath.Dir(o.snap.file)) // empty if the folder does not exist
		for _, e := range entries {
			if strings.EqualFold(filepath.Ext(e.Name()), ".json") && e.Name() != config.Name {
				list = append(list, e.Name())
			}
		}
	}
	return list
}

// rules returns the names of the configurable rules, built-in and of the project.
func (o *completer) rules() (list []string) {
	for _, r := range o.configFor(o.snap).AllRules() {
		if !r.Firm {
			list = append(list, r.Name)
		}
	}
	return list
}
