package overlay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/schema"
)

func TestApply(t *testing.T) {
	for _, test := range []struct {
		name, base, fragment, want string
	}{
		{"replace a value and keep the space around it",
			"{ \"s\": [ { \"a\": {\n  \"port\" : 80 , # the port\n  \"tls\":true } } ] } # end\n",
			`{"s":[{"a":{"port":1}}]}`,
			"{ \"s\": [ { \"a\": {\n  \"port\" : 1 , # the port\n  \"tls\":true } } ] } # end\n"},
		{"clear a flag, which lws cannot",
			`{"s":[{"a":{"tls":true}}]}`, `{"s":[{"a":{"tls":false}}]}`, `{"s":[{"a":{"tls":false}}]}`},
		{"add a setting in the layout of the others",
			"{\"s\":[{\"a\":{\n    \"port\": 80 # p\n  }}]}", `{"s":[{"a":{"tls":true,"retry":"r"}}]}`,
			"{\"s\":[{\"a\":{\n    \"port\": 80, # p\n    \"tls\": true,\n    \"retry\": \"r\"\n  }}]}"},
		{"add to an empty streamtype", `{"s":[{"a":{ }}]}`, `{"s":[{"a":{"port":1,"tls":true}}]}`, `{"s":[{"a":{"port":1,"tls":true }}]}`},
		{"null removes, even the last setting", `{"s":[{"a":{"port":80, "tls":true}}]}`, `{"s":[{"a":{"tls":null}}]}`, `{"s":[{"a":{"port":80}}]}`},
		{"comments of other settings stay",
			"{\"s\":[{\"a\":{\n  \"tls\": true, # one\n  # about the port\n  \"port\": 80, # two\n  \"retry\": \"r\" # three\n }}]}", `{"s":[{"a":{"port":null}}]}`,
			"{\"s\":[{\"a\":{\n  \"tls\": true, # one\n  \"retry\": \"r\" # three\n }}]}"},
		{"remove the last setting and add another",
			"{\"s\":[{\"a\":{\n  \"tls\": true, # one\n  \"port\": 80 # two\n }}]}", `{"s":[{"a":{"port":null,"retry":"r"}}]}`,
			"{\"s\":[{\"a\":{\n  \"tls\": true, # one\n  \"retry\": \"r\"\n }}]}"},
		{"the last of two settings counts", `{"s":[{"a":{"port":80,"port":81}}]}`, `{"s":[{"a":{"port":1}}]}`, `{"s":[{"a":{"port":80,"port":1}}]}`},
		{"the last of two streamtypes counts", `{"s":[{"a":{"port":80}}],"s":[{"a":{"port":81}}]}`, `{"s":[{"a":{"port":1}}]}`,
			`{"s":[{"a":{"port":80}}],"s":[{"a":{"port":1}}]}`},
		{"names match exactly", `{"s":[{"ab":{"port":80}},{"a":{"port":81}},{"abc":{}}]}`, `{"s":[{"a":{"port":1}}]}`,
			`{"s":[{"ab":{"port":80}},{"a":{"port":1}},{"abc":{}}]}`},
		{"metadata by name", `{"s":[{"a":{"metadata":[{"x":"x-x:"}, {"y":"", "z":""}]}}]}`,
			`{"s":[{"a":{"metadata":[{"y":"y:"},{"new":"n:"},{"x":null}]}}]}`,
			`{"s":[{"a":{"metadata":[ {"y":"y:", "z":""}, {"new":"n:"}]}}]}`},
		{"metadata for a streamtype without", `{"s":[{"a":{"port":1}}]}`, `{"s":[{"a":{"metadata":[{"y":"y:"}]}}]}`,
			`{"s":[{"a":{"port":1,"metadata":[{"y":"y:"}]}}]}`},
		{"statuses by number", `{"s":[{"a":{"http_resp_map":[{"404":1404},{"500":1500}]}}]}`, `{"s":[{"a":{"http_resp_map":[{"500":2500},{"404":null},{"501":1}]}}]}`,
			`{"s":[{"a":{"http_resp_map":[{"500":2500},{"501":1}]}}]}`},
		{"metadata in two lists", `{"s":[{"a":{"metadata":[{"x":"x:"}],"metadata":[{"y":"y:"}]}}]}`, `{"s":[{"a":{"metadata":[{"x":"z:"}]}}]}`,
			`{"s":[{"a":{"metadata":[{"x":"z:"}],"metadata":[{"y":"y:"}]}}]}`},
		{"a new streamtype", `{"s":[{"a":{"port":1}}]}`, `{"s":[{"b":{"port":2,"tls":null,"metadata":[{"x":null},{"y":""}]}}]}`,
			`{"s":[{"a":{"port":1}},{"b":{"port":2,"metadata":[{"y":""}]}}]}`},
		{"null removes a streamtype", `{"s":[{"a":{"port":1}},{"b":{}}]}`, `{"s":[{"b":null}]}`, `{"s":[{"a":{"port":1}}]}`},
		{"a definition is replaced as a whole", `{"retry":[{"r":{"backoff":[1],"conceal":2}}],"s":[]}`, `{"retry":[{"r":{"conceal":3}}]}`,
			`{"retry":[{"r":{"conceal":3}}],"s":[]}`},
		{"a definition is added", "{\n  \"retry\": [\n    {\"r\": {\"conceal\": 1}} # one\n  ],\n  \"s\": []\n}", `{"retry":[{"q":{"conceal":3}}]}`,
			"{\n  \"retry\": [\n    {\"r\": {\"conceal\": 1}}, # one\n    {\"q\":{\"conceal\":3}}\n  ],\n  \"s\": []\n}"},
		{"a name comes before one that it begins with", `{"retry":[{"a":{}}, {"r":{}}, {"s":{}}],"s":[]}`, `{"retry":[{"r2":{}}]}`,
			`{"retry":[{"a":{}}, {"r2":{}}, {"r":{}}, {"s":{}}],"s":[]}`},
		{"sections go before their uses",
			"{ # top\n  \"release\": \"1\", # release\n  # streams\n  \"s\": [ { \"a\": { \"port\": 1 } } ]\n}",
			`{"trust_stores":[{"name":"t","stack":["c"]}],"certs":[{"c":"AA=="}],"s":[{"a":{"tls_trust_store":"t"}}]}`,
			"{ # top\n  \"release\": \"1\", # release\n  \"certs\": [{\"c\":\"AA==\"}],\n  \"trust_stores\": [{\"name\":\"t\",\"stack\":[\"c\"]}],\n  # streams\n  \"s\": [ { \"a\": { \"port\": 1, \"tls_trust_store\": \"t\" } } ]\n}"},
		{"a section after the streamtypes is not used", `{"s":[{"a":{}}],"retry":[{"r":{}}]}`, `{"retry":[{"q":{}}]}`,
			`{"retry":[{"q":{}}],"s":[{"a":{}}],"retry":[{"r":{}}]}`},
		{"null removes a definition", `{"retry":[{"a":{}}, {"r":{}}],"certs":[{"c":"AA=="}]}`, `{"retry":[{"a":null}],"certs":[{"c":null}]}`, `{"retry":[ {"r":{}}],"certs":[]}`},
		{"definitions with a name", `{"auth":[{"name":"a","blob":1}],"metrics":[{"name":"m"}],"trust_stores":[{"name":"t","stack":["c"]}]}`,
			`{"auth":[{"name":"a","blob":2}],"metrics":[{"name":"n"}],"trust_stores":[{"name":"t","stack":["d"]}]}`,
			`{"auth":[{"name":"a","blob":2}],"metrics":[{"name":"m"},{"name":"n"}],"trust_stores":[{"name":"t","stack":["d"]}]}`},
		{"settings of the policy", `{"release":"1","via-socks5":"h:1","s":[]}`, `{"release":"2","via-socks5":null,"product":"p","$schema":"x","x-sspolicy":{}}`,
			`{"release":"2","s":[],"product":"p"}`},
		{"a URL stands for four settings", `{"s":[{"a":{"endpoint":"e","port":443,"http_url":"v1","tls":true}}]}`, `{"s":[{"a":{"endpoint":"http://127.0.0.1:8080/x?y"}}]}`,
			`{"s":[{"a":{"endpoint":"127.0.0.1","port":8080,"http_url":"x?y","tls":false}}]}`},
		{"a URL without port or path", `{"s":[{"a":{"endpoint":"e","port":1,"http_url":"v1"}}]}`, `{"s":[{"a":{"endpoint":"https://h"}}]}`,
			`{"s":[{"a":{"endpoint":"h","port":443,"http_url":"","tls":true}}]}`},
		{"host:port keeps the path", `{"s":[{"a":{"endpoint":"e","port":443,"http_url":"v1","tls":true}}]}`, `{"s":[{"a":{"endpoint":"[::1]:80"}}]}`,
			`{"s":[{"a":{"endpoint":"[::1]","port":80,"http_url":"v1","tls":true}}]}`},
		{"an endpoint that is not a URL", `{"s":[{"a":{"endpoint":"e","port":443}}]}`, `{"s":[{"a":{"endpoint":"+/run/x"}}]}`,
			`{"s":[{"a":{"endpoint":"+/run/x","port":443}}]}`},
		{"a fragment that sets the port too", `{"s":[{"a":{"endpoint":"e","port":443}}]}`, `{"s":[{"a":{"endpoint":"h:1","port":2}}]}`,
			`{"s":[{"a":{"endpoint":"h:1","port":2}}]}`},
		{"a URL of another protocol", `{"s":[{"a":{"endpoint":"e","protocol":"mqtt"}}]}`, `{"s":[{"a":{"endpoint":"http://h/"}}]}`,
			`{"s":[{"a":{"endpoint":"http://h/","protocol":"mqtt"}}]}`},
		{"a new protocol drops the settings of the old one",
			`{"s":[{"a":{"protocol":"h1","http_url":"v1","http_method":"GET","timeout_ms":1}}]}`, `{"s":[{"a":{"protocol":"mqtt","mqtt_topic":"t"}}]}`,
			`{"s":[{"a":{"protocol":"mqtt","timeout_ms":1,"mqtt_topic":"t"}}]}`},
		{"a new protocol of the same kind", `{"s":[{"a":{"http_url":"v1"}}]}`, `{"s":[{"a":{"protocol":"h2"}}]}`, `{"s":[{"a":{"http_url":"v1","protocol":"h2"}}]}`},
		{"several streamtypes, in one object and in repeated sections", `{"s":[{"a":{"port":1},"b":{"port":2}}]}`,
			`{"s":[{"b":{"port":20},"a":{"port":10}}],"s":[{"a":{"port":11}}]}`, `{"s":[{"a":{"port":11},"b":{"port":20}}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := schema.Parse("base", []byte(test.base))
			r := Apply(base, []*schema.Document{schema.Parse("fragment", []byte(test.fragment))}, Options{AllowNew: true})
			got := r.Document
			if got == nil {
				t.Fatal(r.Diagnostics)
			}
			if d := cmp.Diff(test.want, got.String()); d != "" {
				t.Error(d)
			}
			if base.String() != test.base {
				t.Errorf("the base was changed to %s", base)
			}
			if parsed := schema.Parse("result", []byte(got.String())); len(parsed.Syntax) > 0 {
				t.Errorf("the result does not parse: %v", parsed.Syntax[0].Message)
			}
		})
	}
}

func TestFindings(t *testing.T) {
	const base = `{"retry":[{"r":{}}],"s":[{"hello":{"port":80,"http_url":"x","metadata":1}},{"bad":1}]}`
	for fragment, want := range map[string]string{
		`{"s":[{"helo":{"port":1}}]}`:               `fragment:1:8: error: the base policy has no streamtype "helo": did you mean "hello"? [overlay-unknown-streamtype]`,
		`{"s":[{"zzzzzzzz":{"port":1}}]}`:           `fragment:1:8: error: the base policy has no streamtype "zzzzzzzz" [overlay-unknown-streamtype]`,
		`{"s":{"hello":{"port":1}}}`:                `fragment:1:6: error: s must be an array, not an object; lws ignores it [wrong-type]`,
		`{"s":[["hello"]]}`:                         `fragment:1:7: error: an entry of s must be an object, not an array [wrong-type]`,
		`{"s":[{"hello":1}]}`:                       `fragment:1:16: error: streamtype "hello" is an object, not a number [wrong-type]`,
		`{"s":[{"bad":{"port":1}}]}`:                `base:1:83: error: streamtype "bad" is an object, not a number [wrong-type]`,
		`{"s":[{"hello":{"port":1,"port":2}}]}`:     `fragment:1:26: error: duplicate key "port": only the last counts [duplicate-key]`,
		`{"s":[{"hello":{"prot":1}}]}`:              `fragment:1:17: error: "prot" is not a key of a streamtype: did you mean "port"? lws makes a phantom streamtype of it, which takes every later key of this one [unknown-key]`,
		`{"s":[{"hello":{"prot":null}}]}`:           `fragment:1:17: error: "prot" is not a key of a streamtype: did you mean "port"? lws makes a phantom streamtype of it, which takes every later key of this one [unknown-key]`,
		`{"s":[{"hello":{"port":70000}}]}`:          `fragment:1:24: error: port must be 0 to 65535, not 70000; lws keeps 4464 [out-of-range]`,
		`{"s":[{"hello":{"port":1}}`:                `fragment:1:27: error: the text ends here, but the 2 objects and arrays around it are not closed; lws loads what it has read so far [syntax]`,
		`{"s":[{"hello":{"metadata":[{"a":""}]}}]}`: `base:1:72: error: metadata must be an array, not a number [wrong-type]`,
		`{"retry":null}`:                            `fragment:1:10: error: retry must be an array, not null; lws ignores it [wrong-type]`,
		`{"retry":[{"q":{"conceal":null}}]}`:        `fragment:1:27: error: conceal must be an integer, not null [wrong-type]`,
		`{"name":"x"}`:                              `fragment:1:1: error: this is not a Secure Streams policy: it has "name", and no key of a policy, such as "s" [not-a-policy]`,
		`{"s":[{"hello":{"retry":null}}]}`:          `fragment:1:17: warning: the base has no "retry" to remove [overlay-no-effect]`,
		`{"s":[{"x":null}],"retry":[{"x":null}]}`:   `fragment:1:8: warning: the base policy has no streamtype "x" to remove [overlay-no-effect]; fragment:1:29: warning: the base policy has no backoff scheme "x" to remove [overlay-no-effect]`,
		`{"x-sspolicy":{"streams":{"hello":{}}}}`:   `fragment:1:16: warning: the settings of streamtypes in x-sspolicy are not applied: they belong in the base policy [overlay-no-effect]`,
		`{"s":[{"hello":{"http_resp_map":[]}}]}`:    `fragment:1:33: warning: an empty list changes nothing: entries are replaced by name, and "http_resp_map": null removes the list [overlay-no-effect]`,
		`{"retry":[{"q":{}}]}`:                      `fragment:1:12: info: lws's own overlay would leave the streamtypes of the base without this backoff scheme [overlay-beyond-lws]`,
		`{"s":[{"hello":{"protocol":"raw"}}]}`:      `fragment:1:17: info: the new protocol of streamtype "hello" drops http_url of the base, which raw does not use [overlay-dropped-settings]`,
		`{}`:                                        ``,
	} {
		r := Apply(schema.Parse("base", []byte(base)), []*schema.Document{schema.Parse("fragment", []byte(fragment))}, Options{})
		var lines []string
		for _, d := range r.Diagnostics {
			lines = append(lines, fmt.Sprintf("%v: %v: %s [%s]", d.Span, d.Severity, d.Message, d.Rule))
		}
		if got := strings.Join(lines, "; "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", fragment, got, want)
		}
		if (r.Document == nil) != strings.Contains(want, ": error: ") {
			t.Errorf("%s: document %v", fragment, r.Document)
		}
	}
	for _, base := range []string{`{"s":[}`, `[]`, `{"name":1}`} {
		if r := Apply(schema.Parse("base", []byte(base)), nil, Options{}); r.Document != nil || len(r.Diagnostics) == 0 {
			t.Errorf("the base %s: %v", base, r)
		}
	}
}

// TestChanges checks the list of changes.
func TestChanges(t *testing.T) {
	base := schema.Parse("base", []byte(`{"retry":[{"r":{}}],"release":"1","s":[{"a":{"port":1,"protocol":"h1","http_url":"u","endpoint":"x","metadata":[{"m":"m:"}]}},{"b":{}}]}`))
	first := schema.Parse("first", []byte(`{"release":"2","retry":[{"r":{"conceal":1}},{"q":{}}],"s":[{"a":{"port":2,"endpoint":"h:3","timeout_ms":1,"metadata":[{"m":null},{"n":""}]},"b":null}]}`))
	second := schema.Parse("second", []byte(`{"s":[{"a":{"port":2,"protocol":"raw"}}]}`))
	r := Apply(base, []*schema.Document{first, second}, Options{})
	var got []string
	text := func(v *schema.Value) string {
		if v == nil {
			return "-"
		}
		return v.Span.String() + "=" + v.Raw()
	}
	for _, c := range r.Changes {
		got = append(got, fmt.Sprintf("%s: %s -> %s by %v in %v %s", c.Path(), text(c.Before), text(c.After), c.By, c.Definition, c.Why))
	}
	want := strings.Split(strings.TrimSpace(`
release: base:1:31="1" -> first:1:12="2" by first:1:2 in base:1:1 
retry.r: base:1:16= -> first:1:30= by first:1:26 in base:1:12 
retry.q: - -> first:1:50= by first:1:46 in first:1:46 
s.a.port: base:1:53=1 -> first:1:73=2 by first:1:66 in base:1:41 
s.a.endpoint: base:1:97="x" -> first:1:86="h:3" by first:1:75 in base:1:41 
s.a.timeout_ms: - -> first:1:105=1 by first:1:92 in base:1:41 
s.a.metadata.m: base:1:118="m:" -> - by first:1:120 in base:1:41 
s.a.metadata.n: - -> first:1:135="" by first:1:131 in base:1:41 
s.b: base:1:132= -> - by first:1:141 in base:1:128 
s.a.protocol: base:1:66="h1" -> second:1:33="raw" by second:1:22 in base:1:41 
s.a.http_url: base:1:82="u" -> - by second:1:22 in base:1:41 the protocol changes to raw
`), "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestProvenance checks that values keep their source through several fragments.
func TestProvenance(t *testing.T) {
	base := schema.Parse("base", []byte(`{"s":[{"a":{"port":1,"tls":true,"endpoint":"x"}}]}`))
	first := schema.Parse("first", []byte(`{"s":[{"a":{"port":2,"retry":"r"}}]}`))
	second := schema.Parse("second", []byte(`{"s":[{"a":{"port":3}}]}`))
	r := Apply(base, []*schema.Document{first, second}, Options{})
	got := r.Document
	if got == nil {
		t.Fatal(r.Diagnostics)
	}
	want := map[string]string{"port": "second:1:20 3", "tls": "base:1:28 true", "retry": `first:1:30 "r"`, "endpoint": `base:1:44 "x"`}
	for _, s := range schema.NewPolicy(got).Section(schema.Streams)[0].Settings {
		if at := s.Member.Value.Span.String() + " " + s.Member.Value.Span.Text(); at != want[s.Key.Name] {
			t.Errorf("%s is from %s, want %s", s.Key.Name, at, want[s.Key.Name])
		}
	}
}

// FuzzApply checks these laws:
//
//   - An empty fragment changes nothing, nor does a policy over itself, unless it
//     defines a name twice.
//   - Applying a fragment twice is applying it once.
//   - The result parses, that of each lws too, and the base is unchanged.
func FuzzApply(f *testing.F) {
	f.Add(`{"s":[{"a":{"port":80 # c
 }}]}`, `{"s":[{"a":{"tls":true,"port":null,"metadata":[{"x":"y"}]}}]}`)
	f.Add(`{"s":[{"a":{"metadata":[{"x":"x:"},{"y":"y:"}],"port":1,}}]}`, `{"s":[{"a":{"metadata":[{"x":null},{"z":""}],"port":2}}]}`)
	f.Add(`{"s":[{"a":{}}]}`, `{"s":[{"a":{"http_resp_map":[{"404":1}],"protocol":"mqtt"}},{"n":{"port":1}}]}`)
	f.Add(`{"retry":[{"r":{}} # c
],"s":[{"a":{"endpoint":"x"}}]}`, `{"certs":[{"c":"AA=="}],"retry":[{"r2":{}},{"r":null}],"auth":[{"name":"x"}],"s":[{"a":{"endpoint":"http://h:1/p"}}]}`)
	f.Fuzz(func(t *testing.T, below, above string) {
		base, fragment := schema.Parse("base", []byte(below)), schema.Parse("fragment", []byte(above))
		empty := schema.Parse("empty", []byte("{}"))
		o := Options{AllowNew: true}
		r := Apply(base, []*schema.Document{fragment}, o)
		for _, v := range schema.Versions {
			l := Apply(base, []*schema.Document{fragment}, Options{LWS: v})
			if l.Document == nil {
				continue
			}
			if parsed := schema.Parse("result", []byte(l.Document.String())); schema.HasErrors(parsed.Syntax) {
				t.Fatalf("lws %v: %q over %q gives %q: %s", v, above, below, l.Document, parsed.Syntax[0].Message)
			}
		}
		if base.String() != below {
			t.Fatalf("the base %q was changed", below)
		}
		if e := Apply(base, []*schema.Document{empty}, o); e.Document != nil && (e.Document.String() != below || len(e.Changes) > 0) {
			t.Fatalf("an empty fragment over %q gives %q", below, e.Document)
		}
		if unique(base) {
			if e := Apply(base, []*schema.Document{base}, o); e.Document != nil && (e.Document.String() != below || len(e.Changes) > 0) {
				t.Fatalf("%q over itself gives %q, %v", below, e.Document, e.Changes)
			}
		}
		if r.Document == nil {
			return
		}
		got := r.Document.String()
		parsed := schema.Parse("result", []byte(got))
		if schema.HasErrors(parsed.Syntax) {
			t.Fatalf("%q over %q gives %q: %s", above, below, got, parsed.Syntax[0].Message)
		}
		if len(r.Changes) == 0 && got != below {
			t.Fatalf("%q over %q gives %q without a change", above, below, got)
		}
		if !unique(fragment) {
			return
		}
		twice := Apply(parsed, []*schema.Document{fragment}, o)
		if twice.Document == nil {
			t.Fatalf("%q over %q fails the second time: %s", above, below, twice.Diagnostics[0].Message)
		}
		if twice.Document.String() != got || len(twice.Changes) > 0 {
			t.Fatalf("%q over %q gives %q, and a second time %q, %v", above, below, got, twice.Document, twice.Changes)
		}
	})
}

// unique reports whether no name is defined twice.
func unique(d *schema.Document) bool {
	p := schema.NewPolicy(d)
	for _, def := range p.Definitions {
		if len(p.Lookup(def.Section, def.Name)) > 1 {
			return false
		}
	}
	return true
}
