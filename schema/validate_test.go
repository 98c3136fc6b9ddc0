package schema

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// FuzzValidate checks that Validate, which passes only scalars to jsonschema, agrees with
// jsonschema on whole policies. For JSON without duplicate keys, either both or neither
// report errors, except for checks that JSON Schema cannot express.
func FuzzValidate(f *testing.F) {
	for _, s := range append(syntaxSeeds,
		`{"release":1,"schema-version":"x","via-socks5":"h:1","via-socks5x":2}`,
		`{"retry":[{"a":{"backoff":[1,2,3],"conceal":70000}}],"retry2":1}`,
		`{"retry":[{"":{}}],"certs":[{"c":1},{"":"x"}],"trust_stores":[{"name":"t","stack":"c"},{"stack":[]},{"x":["c"]}]}`,
		`{"s":[{"a":{"http_resp_map":[{"404":1404},{"1":2}],"metadata":[{"a":"b"},{"":"c"}],"plugins":[]}}]}`,
		`{"s":[{"a":{"port":443.0,"tls":1,"protocol":"h1get","mqtt_qos":3,"timeout_ms":1e3}}],"metrics":[{}],"auth":[{"name":"n","blob":4}]}`,
		`{"x-sspolicy":{"streams":{"a":{"b":[1]}},"other":1},"$schema":"x"}`,
		`{"x-sspolicy":{"streams":{"a":{"metadata":{"b":"raw","c":"cooked","d":1}},"b":1}}}`,
		`{"s":{"a":1},"retry":[1,[],{"a":[]}]}`,
		`{"s":[{"a":{"port":1e9999999}},{"a":{"port":-1e999999999}},{"a":{"port":1e-2147483648}},{"a":{"port":`+strings.Repeat("9", 100)+`}}]}`,
	) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := Parse("f", text)
		if len(d.Syntax) > 0 || d.Root.Kind != ObjectKind || hasDuplicates(&d.Root) || strings.ContainsRune(string(text), '#') {
			return
		}
		dec := json.NewDecoder(strings.NewReader(string(text)))
		dec.UseNumber()
		var whole any
		if err := dec.Decode(&whole); err != nil {
			t.Fatalf("%q has no syntax error, but encoding/json says %v", text, err)
		}
		if longNumber.Match(text) {
			Validate(d) // jsonschema cannot parse such numbers
			return
		}
		err := policySchema().Validate(whole)
		var shapeDiags []Diagnostic
		for _, g := range Validate(d) {
			beyond := g.Rule == RuleBadValue && strings.Contains(g.Message, "point or exponent") ||
				g.Rule == RuleBadLength && strings.Contains(g.Message, "bytes") ||
				g.Rule == RuleBadCount && strings.Contains(g.Message, "too many") || // several entries in one object
				strings.Contains(g.Message, "half of a character")
			if !beyond {
				shapeDiags = append(shapeDiags, g)
			}
		}
		if err == nil && len(shapeDiags) > 0 {
			t.Errorf("%s: found %q, jsonschema nothing", text, shapeDiags[0].Message)
		}
		if err != nil && len(Validate(d)) == 0 {
			t.Errorf("%s: found nothing, jsonschema %v", text, err)
		}
	})
}

var longNumber = regexp.MustCompile(`[0-9.]{40}|[eE][-+]?[0-9]{3}`)

// TestLongNumbers checks that long numbers take linear time and short messages.
func TestLongNumbers(t *testing.T) {
	digits := strings.Repeat("9", 4<<20)
	d := Parse("f", []byte(`{"s":[{"a":{"port":`+digits+`,"timeout_ms":0.`+digits+`,"proxy_buflen":-`+digits+`}}]}`))
	diags := Validate(d)
	if len(diags) != 3 {
		t.Fatalf("%d findings, want 3", len(diags))
	}
	for _, g := range diags {
		if len(g.Message) > 300 {
			t.Errorf("a message of %d bytes", len(g.Message))
		}
	}
}

func TestCounts(t *testing.T) {
	list := func(item string, n int) string { return "[" + strings.Repeat(item+",", n-1) + item + "]" }
	for _, test := range []struct {
		text string
		want string // the message, or ""
	}{
		{`{"retry":[{"r":{"backoff":` + list("1", 8) + `}}]}`, ""},
		{`{"retry":[{"r":{"backoff":` + list("1", 8) + `,"backoff":1}}]}`, "this is one too many of 9: backoff takes at most 8"},
		{`{"retry":[{"r":{"backoff":` + list("1", 4) + `,"backoff":` + list("1", 4) + `,"backoff":[1,1]}}]}`, "this is one too many of 10: backoff takes at most 8"},
		{`{"trust_stores":[{"name":"t","stack":` + list(`"c"`, 6) + `,"stack":"d"}]}`, "this is one too many of 7: stack takes at most 6"},
		{`{"s":[{"a":{"metadata":` + list(`{"m":""}`, 128) + `,"metadata":` + list(`{"m":""}`, 127) + `}}]}`, ""},
		{`{"s":[{"a":{"metadata":` + list(`{"m":""}`, 128) + `,"metadata":` + list(`{"m":""}`, 128) + `}}]}`, "this is one too many of 256: metadata takes at most 255"},
		{`{"s":[{"a":{"metadata":` + list(`{"m":"","n":""}`, 128) + `}}]}`, "this is one too many of 256: metadata takes at most 255"},
		{`{"s":[{"a":{"http_resp_map":` + list(`{"404":1}`, 10) + `,"http_resp_map":` + list(`{"404":1}`, 10) + `}}]}`, ""}, // the last one counts
		{`{"s":[{"a":{"http_resp_map":[{` + strings.Repeat(`"404":1,`, 16) + `"403":1}]}}]}`, "this is one too many of 17: http_resp_map takes at most 16"},
	} {
		got := ""
		for _, g := range Validate(Parse("p", []byte(test.text))) {
			if g.Rule == RuleBadCount {
				got += g.Message
			}
		}
		if got != test.want {
			t.Errorf("%.80s…: found %q, want %q", test.text, got, test.want)
		}
	}
}

func hasDuplicates(v *Value) bool {
	seen := map[string]bool{}
	for _, m := range v.Members() {
		if seen[m.Key] || hasDuplicates(&m.Value) {
			return true
		}
		seen[m.Key] = true
	}
	for _, e := range v.Elems() {
		if hasDuplicates(&e.Value) {
			return true
		}
	}
	return false
}

// TestSchemaKeywords checks that the JSON Schema uses only keywords that Validate
// handles.
func TestSchemaKeywords(t *testing.T) {
	known := map[string]bool{}
	for _, k := range strings.Fields(`$schema $id $defs $ref title description type properties additionalProperties patternProperties
		propertyNames required items minItems maxItems enum pattern minLength maxLength minimum maximum x-lws`) {
		known[k] = true
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		o, ok := v.(map[string]any)
		if !ok {
			return
		}
		for k, sub := range o {
			if !known[k] {
				t.Errorf("%s: unknown keyword %s", at, k)
			}
			switch k {
			case "properties", "$defs", "patternProperties":
				for name, s := range sub.(map[string]any) {
					walk(at+"/"+name, s)
				}
			case "items", "additionalProperties", "propertyNames":
				walk(at+"/"+k, sub)
			}
		}
	}
	var root any
	if err := json.Unmarshal([]byte(JSONSchema), &root); err != nil {
		t.Fatal(err)
	}
	walk("", root)
}

// TestKeyTable checks that each row of the table is complete and consistent.
func TestKeyTable(t *testing.T) {
	n := 0
	for s := range sections {
		for _, k := range Keys(s) {
			n++
			if k.Description == "" || len(k.Types) == 0 {
				t.Errorf("%s.%s has no description or type", s, k.Name)
			}
			if _, ok := parseVersion(k.Since); !ok && s != Top {
				t.Errorf("%s.%s: since %q", s, k.Name, k.Since)
			}
			if k.Is("integer") && k.Width == 0 && k.Name != "schema-version" {
				t.Errorf("%s.%s is an integer without a width", s, k.Name)
			}
			if k.Ref != Top && k.Match == "" {
				t.Errorf("%s.%s is a reference without a match", s, k.Name)
			}
			if k.Flag != "" && !strings.HasPrefix(k.Flag, "LWSSSPOLF_") {
				t.Errorf("%s.%s: flag %s", s, k.Name, k.Flag)
			}
			if LookupKey(s, k.Name) != k {
				t.Errorf("LookupKey does not find %s.%s", s, k.Name)
			}
		}
	}
	if n < 106 {
		t.Errorf("%d keys, want at least 106", n)
	}
	if k := LookupKey(Streams, "http_cookies"); k.In(Version{Major: 4, Minor: 2}) || !k.In(Version{Major: 4, Minor: 3}) || k.Serves("mqtt") || !k.Serves("ws") {
		t.Errorf("http_cookies: %+v", k)
	}
}

func TestWrap(t *testing.T) {
	for _, test := range []struct {
		key, raw, want string
	}{
		{"port", "70000", "4464"}, {"port", "65536", "0"}, {"port", "-1", "65535"}, {"port", "80.9", "80"},
		{"attr_priority", "256", "0"}, {"client_cert", "255", "none"}, {"client_cert", "-1", "none"}, {"client_cert", "256", "0"},
		{"http_expect", "65740", "204"},
		{"port", "9223372036854775808", "65535"}, {"port", "18446744073709551616", "65535"}, {"port", "-9223372036854775809", "0"},
		{"timeout_ms", "4294967296", "0"}, {"timeout_ms", "9223372036854775808", "4294967295"}, {"timeout_ms", "-12345678901234567890", "0"},
	} {
		if got := Wrap(test.raw, LookupKey(Streams, test.key)); got != test.want {
			t.Errorf("%s %s: %s, want %s (observed on lws 4.1.6 to 5.0.0)", test.key, test.raw, got, test.want)
		}
	}
}

func TestDecodeCert(t *testing.T) {
	for text, want := range map[string]string{
		"AQID": "", "AQI=": "", "AQI": "", "A-_/": "", "AQ\nID": "", "": "empty", "=": "empty",
		"AQI.": `"." is not base64`, "A": "truncated", "AQID=AQID": `"=" is not base64`, "é": "not base64",
	} {
		_, err := DecodeCert(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, test := range []struct {
		version, has string
		want         bool
	}{
		{"4.3", "4.3.2", true}, {"4.3.1", "4.3.2", false}, {"4.3.2", "4.3.2", true}, {"4.3.10", "4.3.2", true}, {"4.2", "4.3.2", false},
		{"4.4.0", "4.3.2", true}, {"4.3.0", "4.3", true}, {"5.0", "4.3.2", true}, {"4.1", "", true},
	} {
		var v Version
		if err := v.UnmarshalText([]byte(test.version)); err != nil || v.String() != test.version {
			t.Fatalf("%s: %v, %v", test.version, v, err)
		}
		if v.Has(test.has) != test.want {
			t.Errorf("lws %s has %s: %v", v, test.has, !test.want)
		}
	}
	for _, bad := range []string{"", "4", "4.0", "4.3.x", "4.3.-1", "4.3.1.2", "6.0"} {
		if v := new(Version); v.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken for %v", bad, v)
		}
	}
}
