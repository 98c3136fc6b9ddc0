package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// TestRules checks that every rule is documented, that only it has findings in its bad
// example, and that no rule has one in its good example. Infos of other rules are ignored.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range All() {
		t.Run(r.Name, func(t *testing.T) {
			if !regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z]+)*$`).MatchString(r.Name) || seen[r.Name] {
				t.Errorf("the name %q is not a unique name of words", r.Name)
			}
			seen[r.Name] = true
			for what, text := range map[string]string{"Summary": r.Summary, "Why": r.Why, "LWS": r.LWS} {
				if text == "" {
					t.Errorf("%s is empty", what)
				}
			}
			if strings.HasSuffix(r.Summary, ".") {
				t.Error("Summary ends with a full stop")
			}
			if r.Base != "" {
				fragmentRule(t, r)
				return
			}
			o := lint.Options{LWS: r.Versions, With: []string{r.Group}}
			// Examples for an old version have findings about its flaws, and an example of
			// something outside of streamtypes may have none.
			beside := func(d schema.Diagnostic) bool {
				return d.Severity == schema.Info || d.Rule == emptyPolicy.Name || d.Rule == knownVulnerable.Name
			}
			found := lint.Run(schema.Parse("bad", []byte(r.Bad)), All(), o)
			if len(found) == 0 {
				t.Errorf("nothing found in the bad example")
			}
			for _, d := range found {
				if d.Rule != r.Name && !beside(d) {
					t.Errorf("bad example: %s: %s [%s]", d.Span, d.Message, d.Rule)
				}
			}
			for _, d := range lint.Run(schema.Parse("good", []byte(r.Good)), All(), o) {
				if d.Rule == r.Name || !beside(d) {
					t.Errorf("good example: %s: %s [%s]", d.Span, d.Message, d.Rule)
				}
			}
		})
	}
}

// fragmentRule checks the examples of a rule about fragments. The base has no findings, and
// neither has the base with the good fragment.
func fragmentRule(t *testing.T, r *lint.Rule) {
	apply := func(text string) overlay.Result {
		base := schema.Parse("base", []byte(r.Base))
		var o overlay.Options
		if r.LWSOverlay {
			o.LWS = schema.Latest()
		}
		return overlay.Apply(base, []*schema.Document{schema.Parse("fragment", []byte(text))}, o)
	}
	found := apply(r.Bad).Diagnostics
	if len(found) == 0 {
		t.Error("nothing found in the bad example")
	}
	for _, d := range found {
		if d.Rule != r.Name {
			t.Errorf("bad example: %s: %s [%s]", d.Span, d.Message, d.Rule)
		}
	}
	good := apply(r.Good)
	if good.Document == nil {
		t.Fatal(good.Diagnostics)
	}
	for _, d := range append(good.Diagnostics, lint.Run(good.Document, All(), lint.Options{})...) {
		if d.Rule == r.Name || d.Severity > schema.Info {
			t.Errorf("good example: %s: %s [%s]", d.Span, d.Message, d.Rule)
		}
	}
}

// TestEveryFindingHasARule checks that every name in a diagnostic is that of a rule.
func TestEveryFindingHasARule(t *testing.T) {
	names := map[string]bool{}
	for _, r := range All() {
		names[r.Name] = true
	}
	for _, rule := range []string{
		schema.RuleSyntax, schema.RuleLaxSyntax, schema.RuleDuplicateKey, schema.RuleUnknownKey, schema.RuleLegacyForm,
		schema.RuleMissingKey, schema.RuleWrongType, schema.RuleBadValue, schema.RuleOutOfRange, schema.RuleBadLength, schema.RuleBadCount,
	} {
		if !names[rule] {
			t.Errorf("schema reports %s, which is not a rule of lint", rule)
		}
	}
}

// TestReadmeExample checks the example policy of lws's README, the first that newcomers
// try. It does not load in any version, for three reasons.
func TestReadmeExample(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../../fixtures/readme-example.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range slices.DeleteFunc(lint.Run(schema.Parse("readme.json", text), All(), lint.Options{}), short) {
		got = append(got, d.Span.String()+" "+d.Rule+" "+d.Span.Text())
	}
	want := []string{
		`readme.json:13:17 cert-encoding "MIIFazCCA1OgAw...AnX5iItreGCc="`,
		`readme.json:15:22 cert-encoding "MIIFjTCCA3WgAwIB...WEsikxqEt"`,
		`readme.json:18:1 legacy-form "le_via_isrg"`,
		`readme.json:24:13 legacy-form "h1get"`,
		`readme.json:25:1 unknown-key "aux"`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// short reports whether a diagnostic is caused by the brevity of a test's policy, or is
// only informative.
func short(d schema.Diagnostic) bool {
	return d.Severity == schema.Info || d.Rule == "empty-policy" || d.Rule == "missing-endpoint" || d.Rule == "missing-port" || d.Rule == "missing-method"
}

func TestFindings(t *testing.T) {
	for _, test := range []struct {
		name, policy string
		want         []string // rule, text at the span, and part of the message
	}{
		{"sound", `{"retry":[{"r":{"backoff":[1]}}],"s":[{"a":{"retry":"r","rideshare":"b"}},{"b":{}}],"retry":[{"q":{}}],"s":[{"c":{"retry":"q"}}]}`, nil},
		{"phantom", `{"s":[{"a":{"Port":1,"tls":true}}]}`, []string{`unknown-key|"Port"|did you mean "port"? lws makes a phantom streamtype`}},
		{"documented alias", `{"s":[{"a":{"client cert":1}}]}`, []string{`unknown-key|"client cert"|did you mean "client_cert"?`}},
		{"far from any key", `{"s":[{"a":{"zzzzzz":1}}]}`, []string{`unknown-key|"zzzzzz"|is not a key of a streamtype; lws`}},
		{"unknown at the top", `{"extra":1,"s":[]}`, []string{`unknown-key|"extra"|lws ignores it`}},
		{"our own object", `{"x-sspolicy":{"streams":{"a":{}},"base":""},"s":[]}`, nil},
		{"a setting that our own object does not have", `{"x-sspolicy":{"streams":{"a":{"anything":[1]}}},"s":[]}`,
			[]string{`unknown-key|"anything"|x-sspolicy has no setting "anything" of a streamtype: it has "metadata"`}},
		{"an unknown value of it", `{"x-sspolicy":{"streams":{"a":{"metadata":{"b":"cooked"}}}},"s":[]}`, []string{`bad-value|"cooked"|unknown value "cooked": want raw`}},
		{"a wrong type of it", `{"x-sspolicy":{"streams":{"a":{"metadata":{"b":true}}}},"s":[]}`, []string{`wrong-type|true|this must be a string, not a boolean`}},
		{"raw without an effect", `{"x-sspolicy":{"streams":{"a":{"metadata":{"b":"raw","c":"raw","d":"raw"}},"z":{"metadata":{"b":"raw"}}}},"s":[{"a":{"protocol":"mqtt","mqtt_topic":"${b}","metadata":[{"b":""},{"c":""}]}}]}`,
			[]string{`raw-metadata|"b"|metadata "b" is not a part of a topic or URL of streamtype "a"`, `raw-metadata|"c"|not a part of`, `raw-metadata|"d"|has no metadata "d"`, `raw-metadata|"z"|there is no streamtype "z"`}},
		{"stack before its certificates", `{"trust_stores":[{"name":"t","stack":["c"]}],"certs":[{"c":"MIIB"}]}`,
			[]string{`forward-reference|"c"|certificate "c" is defined after its use in trust store "t"`}},
		{"rideshare may come later", `{"s":[{"a":{"rideshare":"b"}},{"b":{}}]}`, nil},
		{"rideshare to nowhere", `{"s":[{"a":{"rideshare":"c"}},{"b":{}}]}`, []string{`undefined-reference|"c"|streamtype "c" is not defined: did you mean "a"?`}},
		{"each of two keys", `{"s":[{"a":{"port":"x","port":70000}}]}`,
			[]string{`wrong-type|"x"|port must be an integer, not a string`, `duplicate-key|"port"|only the last counts`, `out-of-range|70000|lws keeps 4464`}},
		{"flags are joined", `{"s":[{"a":{"tls":true,"tls":false}}]}`, []string{`duplicate-key|"tls"|true if one of them is`}},
		{"a flag without a bit is joined too", `{"s":[{"a":{"protocol":"mqtt","mqtt_topic":"t","aws_iot":true,"aws_iot":false}}]}`, []string{`duplicate-key|"aws_iot"|true if one of them is`}},
		{"a list may be its one item", `{"retry":[{"r":{"backoff":1000}}],"s":[{"a":{"plugins":"x","retry":"r"}}]}`, nil},
		{"a scheme for a protocol", `{"s":[{"a":{"protocol":"wss","port":443}}]}`, []string{`bad-value|"wss"|write "ws", "tls": true`}},
		{"a protocol in capitals", `{"s":[{"a":{"protocol":"MQTT","mqtt_topic":"t"}}]}`, []string{`bad-value|"MQTT"|write "mqtt"`}},
		{"no protocol", `{"s":[{"a":{"protocol":"gopher"}}]}`, []string{`bad-value|"gopher"|want one of h1`}},
		{"timeout", `{"s":[{"a":{"timeout":30}}]}`, []string{`unknown-key|"timeout"|use timeout_ms, in milliseconds; lws makes`}},
		{"a name inside", `{"s":[{"a":{"name":"b"}}]}`, []string{`unknown-key|"name"|the key of a streamtype is its name; lws makes`}},
		{"a name beside", `{"s":[{"name":"a","b":{}}]}`, []string{`wrong-type|"a"|streamtype "name" is an object, not a string: the name of a streamtype is its key`}},
		{"conceal", `{"retry":[{"r":{"backoff":[1],"conceal":100000}}],"s":[{"a":{"nailed_up":true,"retry":"r"}}]}`, []string{`out-of-range|100000|lws keeps 34464`}},
		{"half of a character", `{"s":[{"a":{"payload_fmt":"x\ud83dy"}}]}`, []string{`bad-value|\ud83d|is half of a character`}},
		{"half of a character in a key", `{"s":[{"a\udc00":{}}]}`, []string{`bad-value|\udc00|is half of a character`}},
		{"a misspelt key is not missing", `{"certs":[{"c":"MIIB"}],"trust_stores":[{"name":"t","stak":["c"]}]}`, []string{`unknown-key|"stak"|did you mean "stack"?`}},
		{"a long rideshare keeps its tail", `{"s":[{"a":{"rideshare":"` + strings.Repeat("b", 260) + `"}}]}`, []string{`bad-length|"bb|lws keeps the last 6`, `undefined-reference|"bb|`}},
		{"a long proxy loses its login", `{"via-socks5":"u:` + strings.Repeat("p", 250) + `@h.example:1080","s":[]}`, []string{`bad-length|"u:p|lws keeps the last 13`, `embedded-secret|ppp|`}},
		{"across repeated sections", `{"s":[{"a":{}}],"s":[{"a":{}}]}`, []string{`duplicate-definition|"a"|streamtype "a" is defined again`}},
		{"section as an object", `{"s":{"a":{}}}`, []string{`wrong-type|{"a":{}}|lws ignores it`}},
		{"exponent", `{"s":[{"a":{"timeout_ms":1e3}}]}`, []string{`bad-value|1e3|lws reads 1 and stops`}},
		{"bytes are counted, not characters", `{"s":[{"a":{"http_url":"` + strings.Repeat("é", 127) + `"}}]}`, []string{`bad-length|"éé|http_url has 254 bytes, and lws keeps at most 253; lws keeps nothing of it`}},
		{"status", `{"s":[{"a":{"http_resp_map":[{"999":1000}]}}]}`, []string{`bad-value|"999"|not an HTTP status`}},
		{"cut off", `{"retry":[{"r":{"backoff":[1],"jitterpc":1}}],"s":[{"a":{"endpoint":"example.com","retry":"r"`, []string{`syntax||the text ends here`}},
		{"empty reference", `{"s":[{"a":{"retry":""}}]}`, []string{`bad-length|""|retry is empty`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := slices.DeleteFunc(lint.Run(schema.Parse("p", []byte(test.policy)), All(), lint.Options{}), short)
			for i, d := range found {
				got := d.Rule + "|" + d.Span.Text() + "|" + d.Message
				if i >= len(test.want) {
					t.Errorf("found %s", got)
					continue
				}
				want := strings.SplitN(test.want[i], "|", 3)
				if d.Rule != want[0] || !strings.HasPrefix(d.Span.Text(), want[1]) || !strings.Contains(d.Message, want[2]) {
					t.Errorf("found %s, want %s", got, test.want[i])
				}
			}
			if len(found) < len(test.want) {
				t.Errorf("not found: %q", test.want[len(found):])
			}
		})
	}
}

func TestVersions(t *testing.T) {
	d := schema.Parse("p", []byte(`{"s":[{"a":{"mqtt_retain":true,"protocol":"h3","http_cookies":true}}]}`))
	var got []string
	for _, g := range lint.Run(d, All(), lint.Options{With: Groups(), LWS: []schema.Version{{Major: 4, Minor: 1}, {Major: 4, Minor: 3}, {Major: 5, Minor: 0}}}) {
		if g.Rule == unsupportedVersion.Name {
			got = append(got, g.Message)
		}
	}
	want := []string{
		"lws 4.1 has no mqtt_retain: it came with 4.3.2",
		`lws 4.1, 4.3 has no protocol "h3": it came with 5.0`,
		"lws 4.1 has no http_cookies: it came with 4.3",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func BenchmarkRun(b *testing.B) {
	var s strings.Builder
	s.WriteString(`{"retry":[{"default":{"backoff":[1000,2000],"conceal":5}}],"s":[`)
	for i := range 1000 {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteString(`{"stream` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + `":{"endpoint":"example.com","port":443,"protocol":"h1","http_method":"GET","http_url":"/index.html","tls":true,"opportunistic":true,"retry":"default"}}`)
	}
	s.WriteString(`]}`)
	text := []byte(s.String())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		lint.Run(schema.Parse("p", text), All(), lint.Options{With: Groups()})
	}
}

// TestGroups checks that the rules of a group are checked only on request, by group or by
// rule.
func TestGroups(t *testing.T) {
	d := schema.Parse("p", []byte(policy2cOrder.Bad))
	for _, test := range []struct {
		with []string
		want bool
	}{
		{nil, false}, {[]string{"policy2c"}, true}, {[]string{"other", "policy2c-order"}, true}, {[]string{"policy2c-losses"}, false},
	} {
		found := lint.Run(d, All(), lint.Options{With: test.with})
		if got := slices.ContainsFunc(found, func(g schema.Diagnostic) bool { return g.Rule == "policy2c-order" }); got != test.want {
			t.Errorf("with %q: reported: %v", test.with, got)
		}
	}
	// A comment for a rule that is not checked is neither invalid nor unused.
	d = schema.Parse("p", []byte(strings.Replace(policy2cOrder.Bad, "{", "{ # sspolicy:ignore policy2c-order -- why\n", 1)))
	if found := lint.Run(d, All(), lint.Options{}); len(found) > 0 {
		t.Errorf("found %v", found)
	}
	if !slices.IsSorted(Groups()) || !slices.Contains(Groups(), "policy2c") {
		t.Errorf("the groups are %q", Groups())
	}
}

// TestFlaws checks that a flaw of a release is reported if the policy uses the affected
// feature.
func TestFlaws(t *testing.T) {
	for _, test := range []struct {
		lws, policy, want string // part of the message
	}{
		{"4.1", mqtt(`"mqtt_topic":"t"`), "loop without end"},
		{"4.3.10", mqtt(`"mqtt_topic":"t"`), "loop without end"},
		{"4.4.4", mqtt(`"mqtt_topic":"t"`), "loop without end"},
		{"4.4.5", mqtt(`"mqtt_topic":"t"`), "!loop without end"},
		{"4.4.5", mqtt(`"mqtt_topic":"t"`), "too short"},
		{"4.4", mqtt(`"mqtt_topic":"t"`), "!loop without end"}, // the newest release is meant
		{"5.0", mqtt(`"mqtt_topic":"t"`), ""},
		{"5.0.0", mqtt(`"mqtt_topic":"t"`), ""},
		{"4.5.2", h1(""), "size of a chunk"},
		{"4.5.3", h1(""), "!size of a chunk"},
		{"4.4.5", h1(""), "size of a chunk"},
		{"4.3.10", h1(""), "!HPACK"},
		{"4.3.10", strings.Replace(h1(`"tls":true`), `"h1"`, `"h2"`, 1), "HPACK"},
		{"4.3.10", strings.Replace(h1(""), `"h1"`, `"h2"`, 1), "!HPACK"}, // which is HTTP/1.1
		{"4.3.6", h1(""), "can overflow a buffer"},
		{"4.3.7", h1(""), "!can overflow a buffer"},
		{"4.3.7", strings.Replace(h1(""), "example.com", "192.0.2.1", 1), "!ASYNC_DNS"},
		{"4.4.4", h1(`"client_buflen":1`), "name of a rideshare"},
		{"4.4.4", h1(``), "!name of a rideshare"},
	} {
		var v schema.Version
		if err := v.UnmarshalText([]byte(test.lws)); err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, g := range lint.Run(schema.Parse("p", []byte(test.policy)), All(), lint.Options{LWS: []schema.Version{v}}) {
			if g.Rule == knownVulnerable.Name {
				all.WriteString(g.Message + "\n")
			}
		}
		text, unwanted := strings.CutPrefix(test.want, "!")
		if got := strings.Contains(all.String(), text); got == unwanted || test.want == "" && all.Len() > 0 {
			t.Errorf("lws %s: found %q, want %q of %s", test.lws, all.String(), test.want, test.policy)
		}
	}
}
