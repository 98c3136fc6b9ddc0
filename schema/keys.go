package schema

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// JSONSchema is the JSON Schema (draft 2020-12) of a policy. It is the only table
// of keys.
//
//go:embed policy.schema.json
var JSONSchema string

// A Section is an array at the top of a policy that defines named entries.
type Section string

// The sections of a policy. Top is its outermost object.
const (
	Top         Section = ""
	Retry       Section = "retry"
	Certs       Section = "certs"
	TrustStores Section = "trust_stores"
	Metrics     Section = "metrics"
	Auth        Section = "auth"
	Streams     Section = "s"
)

var sections = map[Section]struct {
	noun  string // for an entry
	def   string // its definition in the JSON Schema
	keyed bool   // an entry's name is a key, not the value of a member "name"
}{
	Top:         {"policy", "", false},
	Retry:       {"backoff scheme", "retry", true},
	Certs:       {"certificate", "", true},
	TrustStores: {"trust store", "trust_store", false},
	Metrics:     {"metric policy", "metrics", false},
	Auth:        {"auth scheme", "auth", false},
	Streams:     {"streamtype", "stream", true},
}

// Noun returns the noun for an entry of the section, such as "streamtype".
func (s Section) Noun() string { return sections[s].noun }

// A Match is how lws finds the entry that a reference names.
type Match string

// The ways of finding an entry.
const (
	MatchExact     Match = "exact"
	MatchPrefix    Match = "prefix"    // the newest entry whose name starts with the reference
	MatchUnchecked Match = "unchecked" // resolved only when it is used
)

// A Key is a row of the table of keys.
type Key struct {
	Section     Section // whose entries have the key
	Name        string
	Types       []string // JSON Schema names of the types that lws accepts
	Enum        []string // the valid strings; nil for any
	Minimum     json.Number
	Maximum     json.Number
	MaxItems    int // of a list; 0 for any number
	Description string

	Member            string   // C member of lws that holds the value, such as u.http.url; "" for none
	Flag              string   // C flag that it sets, such as LWSSSPOLF_TLS; "" for none
	Bit               int      // the bit number of Flag
	Unit              string   // of an integer: "ms", "s", "us", "%" or ""
	Width             int      // bits of an integer's C member; 0 for other types
	Since             string   // the first lws release that reads it
	Protocols         []string // the protocols that use it; nil for all
	Role              string   // "client" or "server"; empty for both
	Ref               Section  // the section whose entry the value names; Top if it is not a reference
	Match             Match
	Inert             bool                         // no lws version acts on it
	Sticky            bool                         // a boolean that false does not clear after true
	Aliases           []string                     // documented names that no lws version reads
	ValueAliases      map[string]map[string]string // documented values that no lws version reads, and the settings to use instead
	ValueReplacements map[string]map[string]any    // other values in use, and the settings they stand for
	ValueSince        map[string]string            // the first lws release that reads a value, if later than Since

	first Version // Since, parsed
}

// Is reports whether typ, a type name of JSON Schema, is among the types of the
// key.
func (k *Key) Is(typ string) bool { return slices.Contains(k.Types, typ) }

// Replacement returns the settings that an invalid value stands for, including this
// key, or nil. The caller must not change it.
func (k *Key) Replacement(value string) map[string]any {
	if use, ok := k.ValueAliases[value]; ok {
		settings := map[string]any{}
		for key, v := range use {
			settings[key] = v
		}
		return settings
	}
	lower := strings.ToLower(value)
	if slices.Contains(k.Enum, lower) {
		return map[string]any{k.Name: lower}
	}
	return k.ValueReplacements[lower]
}

// Joined reports whether lws joins the lists of an object that has the key more
// than once. For all other keys the last one counts.
func (k *Key) Joined() bool { return k.Name == "metadata" || k.Name == "stack" || k.Name == "backoff" }

// Serves reports whether a protocol uses the key. It is true for the unknown
// protocol "".
func (k *Key) Serves(protocol string) bool {
	return k.Protocols == nil || protocol == "" || slices.Contains(k.Protocols, protocol)
}

// A keyTable is the JSON Schema in the form of a table.
type keyTable struct {
	keys       map[Section][]*Key
	byName     map[Section]map[string]*Key
	documented map[Section]map[string]string // names that appear only in lws's documentation, and the key to use instead
	common     map[Section]map[string]string // names often written by mistake, and the advice to give
}

var table = sync.OnceValue(func() keyTable {
	type lws struct {
		Member       string                       `json:"member"`
		Flag         string                       `json:"flag"`
		Bit          int                          `json:"bit"`
		Width        int                          `json:"width"`
		Unit         string                       `json:"unit"`
		Since        string                       `json:"since"`
		Protocols    []string                     `json:"protocols"`
		Role         string                       `json:"role"`
		Ref          Section                      `json:"ref"`
		Match        Match                        `json:"match"`
		Inert        bool                         `json:"inert"`
		Sticky       bool                         `json:"sticky"`
		Aliases      []string                     `json:"aliases"`
		ValueAliases map[string]map[string]string `json:"valueAliases"`
		ValueMeant   map[string]map[string]any    `json:"valueMeant"`
		ValueSince   map[string]string            `json:"valueSince"`

		DocumentedOnly map[string]string `json:"documentedOnly"`
		Meant          map[string]string `json:"meant"`
	}
	type object struct {
		Properties orderedMap[struct {
			Type        oneOrMore   `json:"type"`
			Enum        []string    `json:"enum"`
			Minimum     json.Number `json:"minimum"`
			Maximum     json.Number `json:"maximum"`
			MaxItems    int         `json:"maxItems"`
			Description string      `json:"description"`
			LWS         lws         `json:"x-lws"`
		}] `json:"properties"`
		LWS lws `json:"x-lws"`
	}
	var root struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(JSONSchema), &root); err != nil {
		panic("schema: the embedded JSON Schema does not decode: " + err.Error()) // a test decodes it
	}

	t := keyTable{map[Section][]*Key{}, map[Section]map[string]*Key{}, map[Section]map[string]string{}, map[Section]map[string]string{}}
	add := func(s Section, o object) {
		t.byName[s] = map[string]*Key{}
		t.documented[s], t.common[s] = o.LWS.DocumentedOnly, o.LWS.Meant
		for _, p := range o.Properties {
			k := &Key{
				Section: s, Name: p.Key, Types: p.Value.Type, Enum: p.Value.Enum,
				Minimum: p.Value.Minimum, Maximum: p.Value.Maximum, MaxItems: p.Value.MaxItems, Description: p.Value.Description,
				Member: p.Value.LWS.Member, Flag: p.Value.LWS.Flag, Bit: p.Value.LWS.Bit,
				Width: p.Value.LWS.Width, Unit: p.Value.LWS.Unit, Since: p.Value.LWS.Since, Protocols: p.Value.LWS.Protocols,
				Role: p.Value.LWS.Role, Ref: p.Value.LWS.Ref, Match: p.Value.LWS.Match,
				Inert: p.Value.LWS.Inert, Sticky: p.Value.LWS.Sticky || p.Value.LWS.Flag != "", Aliases: p.Value.LWS.Aliases,
				ValueAliases: p.Value.LWS.ValueAliases, ValueReplacements: p.Value.LWS.ValueMeant, ValueSince: p.Value.LWS.ValueSince,
			}
			k.first, _ = parseVersion(k.Since)
			t.keys[s] = append(t.keys[s], k)
			t.byName[s][k.Name] = k
		}
	}
	for s, info := range sections {
		switch {
		case s == Top:
			add(s, root.object)
		case info.def != "":
			add(s, root.Defs[info.def])
		}
	}
	return t
})

// Keys returns the keys of the entries of a section, in the order of the JSON
// Schema. The caller must not change them.
func Keys(s Section) []*Key { return table().keys[s] }

// LookupKey returns the key with exactly this name, or nil. Case matters, as in
// lws.
func LookupKey(s Section, name string) *Key { return keysOf(s)[name] }

// keysOf returns the keys of the entries of a section, by name.
func keysOf(s Section) map[string]*Key { return table().byName[s] }

// oneOrMore is the value of the JSON Schema keyword "type": a name or a list of
// names.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	if strings.HasPrefix(string(b), "[") {
		return json.Unmarshal(b, (*[]string)(o))
	}
	*o = make([]string, 1)
	return json.Unmarshal(b, &(*o)[0])
}

// An orderedMap is a JSON object whose order matters.
type orderedMap[V any] []struct {
	Key   string
	Value V
}

func (o *orderedMap[V]) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("got %v, want an object: %w", t, err)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		var v V
		if err := d.Decode(&v); err != nil {
			return err
		}
		*o = append(*o, struct {
			Key   string
			Value V
		}{t.(string), v})
	}
	return nil
}
