package overlay

import (
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
		{"null removes, even the last setting", `{"s":[{"a":{"port":80, "tls":true}}]}`, `{"s":[{"a":{"tls":null,"retry":null}}]}`, `{"s":[{"a":{"port":80}}]}`},
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
		{"other lists are replaced", `{"s":[{"a":{"http_resp_map":[{"404":1404}]}}]}`, `{"s":[{"a":{"http_resp_map":[{"500":1500}]}}]}`,
			`{"s":[{"a":{"http_resp_map":[{"500":1500}]}}]}`},
		{"several streamtypes, in one object and in repeated sections", `{"s":[{"a":{"port":1},"b":{"port":2}}]}`,
			`{"s":[{"b":{"port":20},"a":{"port":10}}],"s":[{"a":{"port":11}}]}`, `{"s":[{"a":{"port":11},"b":{"port":20}}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := schema.Parse("base", []byte(test.base))
			got, diags := Apply(base, schema.Parse("fragment", []byte(test.fragment)))
			if got == nil {
				t.Fatal(diags)
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

func TestApplyErrors(t *testing.T) {
	const base = `{"retry":[{"r":{}}],"s":[{"hello":{"port":80}},{"bad":1}]}`
	for fragment, want := range map[string]string{
		`{"retry":[{"r":{}}]}`:                     `1:2 an overlay changes only streamtypes, in "s": define "retry" in the base policy`,
		`{"s":[{"helo":{"port":1}}]}`:              `1:8 the base policy has no streamtype "helo": did you mean "hello"?`,
		`{"s":[{"zzzzzzzz":{"port":1}}]}`:          `1:8 the base policy has no streamtype "zzzzzzzz"`,
		`{"s":{"hello":{"port":1}}}`:               `1:6 "s" must be an array, not an object`,
		`{"s":[["hello"]]}`:                        `1:7 an entry of "s" must be an object, not an array`,
		`{"s":[{"hello":1}]}`:                      `1:16 streamtype "hello" must be an object, not a number`,
		`{"s":[{"bad":{"port":1}}]}`:               `1:8 streamtype "bad" of the base policy must be an object, not a number`,
		`{"s":[{"hello":{"port":1,"port":2}}]}`:    `1:26 this fragment sets "port" twice`,
		`{"s":[{"hello":{"port":1}}`:               `1:27 the text ends here`,
		``:                                         `1:1 the text is empty`,
		`{"s":[{"hello":{"port":1}}],"x":1,"s":2}`: `1:29 an overlay changes only streamtypes, in "s": define "x"`,
	} {
		got, diags := Apply(schema.Parse("base", []byte(base)), schema.Parse("fragment", []byte(fragment)))
		if got != nil || len(diags) == 0 {
			t.Errorf("%s: no error", fragment)
			continue
		}
		if msg := strings.TrimPrefix(diags[0].Span.String(), "fragment:") + " " + diags[0].Message; !strings.HasPrefix(msg, want) {
			t.Errorf("%s: %s, want %s", fragment, msg, want)
		}
	}
}

// TestProvenance checks that values keep their source through several fragments.
func TestProvenance(t *testing.T) {
	base := schema.Parse("base", []byte(`{"s":[{"a":{"port":1,"tls":true,"endpoint":"x"}}]}`))
	first := schema.Parse("first", []byte(`{"s":[{"a":{"port":2,"retry":"r"}}]}`))
	second := schema.Parse("second", []byte(`{"s":[{"a":{"port":3}}]}`))
	got, diags := Apply(base, first, second)
	if got == nil {
		t.Fatal(diags)
	}
	want := map[string]string{"port": "second:1:20 3", "tls": "base:1:28 true", "retry": `first:1:30 "r"`, "endpoint": `base:1:44 "x"`}
	for _, s := range schema.NewPolicy(got).Section(schema.Streams)[0].Settings {
		if at := s.Member.Value.Span.String() + " " + s.Member.Value.Span.Text(); at != want[s.Key.Name] {
			t.Errorf("%s is from %s, want %s", s.Key.Name, at, want[s.Key.Name])
		}
	}
}

// FuzzApply checks that the result parses, that applying the same fragment again
// changes nothing, and that the base is unchanged.
func FuzzApply(f *testing.F) {
	f.Add(`{"s":[{"a":{"port":80 # c
 }}]}`, `{"s":[{"a":{"tls":true,"port":null,"metadata":[{"x":"y"}]}}]}`)
	f.Add(`{"s":[{"a":{"metadata":[{"x":"x:"},{"y":"y:"}],"port":1,}}]}`, `{"s":[{"a":{"metadata":[{"x":null},{"z":""}],"port":2}}]}`)
	f.Add(`{"s":[{"a":{}}]}`, `{"s":[{"a":{"b":{"c":[1]}}}]}`)
	f.Fuzz(func(t *testing.T, below, above string) {
		base, fragment := schema.Parse("base", []byte(below)), schema.Parse("fragment", []byte(above))
		got, _ := Apply(base, fragment)
		if base.String() != below {
			t.Fatalf("the base %q was changed", below)
		}
		if got == nil || schema.HasErrors(base.Syntax) {
			return
		}
		parsed := schema.Parse("result", []byte(got.String()))
		if schema.HasErrors(parsed.Syntax) {
			t.Fatalf("%q over %q gives %q: %s", above, below, got, parsed.Syntax[0].Message)
		}
		twice, diags := Apply(parsed, fragment)
		if twice == nil {
			t.Fatalf("%q over %q fails the second time: %s", above, below, diags[0].Message)
		}
		if twice.String() != got.String() {
			t.Fatalf("%q over %q gives %q, and a second time %q", above, below, got, twice)
		}
	})
}
