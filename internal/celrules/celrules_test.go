package celrules

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

const policy = `{
  "release": "01234567", "product": "p", "schema-version": 1, "via-socks5": "127.0.0.1:1080",
  "retry": [{"r": {"backoff": [1000, 2000], "conceal": 5, "jitterpc": 20}}, {"one": {"backoff": 3000}}],
  "certs": [{"root": "%s"}, {"junk": "!"}],
  "trust_stores": [{"name": "corp-a", "stack": ["root", "junk"]}],
  "auth": [{"name": "sts", "type": "sigv4", "streamtype": "b", "blob": 1}],
  "s": [
    {"b": {"endpoint": "b.example.com", "port": 443, "protocol": "h2", "tls": true, "tls_trust_store": "corp-a", "retry": "r", "plugins": "x",
      "metadata": [{"id": ""}, {"mime": "Content-Type:"}], "http_resp_map": [{"530": 20}]}},
    {"a": {"endpoint": "a.example.com", "rideshare": "b", "use_auth": "sts", "options": [{"k": "v"}]}},
    {"w": {"tls": "yes", "port": "443"}}
  ]
}`

// fixture returns the policy above with a certificate that ends on 2035-03-29 or so.
func fixture(t testing.TB) *schema.Document {
	t.Helper()
	text, err := os.ReadFile("../../fixtures/weather.json")
	if err != nil {
		t.Fatal(err)
	}
	cert := schema.NewPolicy(schema.Parse("", text)).Section(schema.Certs)[0].Value.Text()
	return schema.Parse("p.json", fmt.Appendf(nil, policy, cert))
}

func rules(t testing.TB, specs ...Spec) (all []*lint.Rule) {
	t.Helper()
	for _, s := range specs {
		r, wrong := Compile(s)
		if wrong != nil {
			t.Fatalf("%s: %v", s.Expression, wrong)
		}
		all = append(all, r)
	}
	return all
}

// TestExpressions checks that each expression is true for exactly the named
// definitions.
func TestExpressions(t *testing.T) {
	for _, test := range []struct{ target, expression, want string }{
		{"stream", `stream.name == "a"`, "a"},
		{"stream", `stream.tls && stream.trust_store.startsWith("corp-")`, "b"},
		{"stream", `stream.tls`, "b w"}, // "yes" means true beyond doubt
		{"stream", `stream.port == 443`, "b"},
		{"stream", `has(stream.port)`, "b w"},
		{"stream", `has(stream.protocol)`, "b"},
		{"stream", `stream.protocol == "h1"`, "a w"},
		{"stream", `stream.plugins == ["x"]`, "b"},
		{"stream", `stream.metadata == {"id": "", "mime": "Content-Type:"}`, "b"},
		{"stream", `"mime" in stream.metadata`, "b"},
		{"stream", `stream.http_resp_map[530] == 20`, "b"}, // an error for the others
		{"stream", `530 in stream.http_resp_map`, "b"},
		{"stream", `stream.options == {"k": "v"}`, "a"},
		{"stream", `stream.backoff.conceal > 3 && stream.backoff.backoff.all(ms, ms >= 1000)`, "b"},
		{"stream", `stream.shares.shares.name == "" && stream.shares.name == "b" && stream.auth.blob == 1`, "a"},
		{"stream", `has(stream.shares)`, "a"},
		{"stream", `stream.shares == policy.streams[0]`, "a"},
		{"stream", `stream.trust.certificates.exists(c, c.key_type == "ECDSA")`, "b"},
		{"stream", `stream.used_by == ["a"]`, "b"},
		{"retry", `retry.backoff == [3000]`, "one"},
		{"retry", `retry.used_by.size() == 0`, "one"},
		{"retry", `has(retry.used_by)`, "r"},
		{"certificate", `certificate.readable && certificate.key_bits == 256 && certificate.self_signed && certificate.ca`, "root"},
		{"certificate", `certificate.not_after - now > duration("1h") && certificate.not_before < now`, "root"},
		{"certificate", `certificate.sha256.size() == 64 && certificate.size > 100 && certificate.signature == "ECDSA-SHA256"`, "root"},
		{"certificate", `certificate.used_by == ["corp-a"]`, "root junk"},
		{"certificate", `certificate.subject == certificate.issuer && certificate.subject.contains("CN=")`, "root"},
		{"trust_store", `trust_store.stack == ["root", "junk"] && trust_store.name == "corp-a" && trust_store.used_by == ["b"]`, "corp-a"},
		{"auth", `auth.type == "sigv4" && auth.streamtype == "b"`, "sts"},
		{"policy", `policy.release == "01234567" && policy.schema_version == 1 && policy.via_socks5.endsWith(":1080")`, "policy"},
		{"policy", `policy.streams.map(s, s.name).distinct().size() == policy.streams.size()`, "policy"},
		{"policy", `policy.retries.size() + policy.auths.size() + policy.certificates.size() + policy.trust_stores.size() + policy.metrics.size() == 6`, "policy"},
		{"policy", `policy == policy`, "policy"},
		{"policy", `type(policy.streams[0]) == type(policy.streams[1])`, "policy"},
	} {
		d := fixture(t)
		r := rules(t, Spec{ID: "t/x", Target: test.target, Expression: test.expression})
		var broken []string
		for _, g := range lint.Run(d, r, lint.Options{}) {
			name := strings.Trim(g.Span.Text(), `"`)
			if test.target == "policy" {
				name = "policy"
			}
			broken = append(broken, name)
		}
		var got []string
		for _, def := range append(schema.NewPolicy(d).Section(classOf(test.target).section), &schema.Definition{Name: "policy", Section: schema.Top}) {
			if def.Section == classOf(test.target).section && !slices.Contains(broken, def.Name) {
				got = append(got, def.Name)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: true for %q, want %q", test.expression, got, test.want)
		}
	}
}

// TestMessages checks the position of a finding and the expressions in its message, and
// that a failing expression is a finding.
func TestMessages(t *testing.T) {
	for _, test := range []struct {
		spec Spec
		want string
	}{
		{Spec{Target: "stream", Expression: `stream.name != "b"`, At: "port", Message: `${stream.name}: ${stream.port} ${stream.tls} ${"}" + '${'} $x {}`}, `8:49 b: 443 true }${ $x {}`},
		{Spec{Target: "stream", Expression: `stream.name != "a"`, At: "port"}, `10:6 not true for streamtype "a": stream.name != "a"`},
		{Spec{Target: "stream", Expression: `stream.name != "a" || stream.http_resp_map[1] == 0`, Message: "x"}, `10:6 the expression of the rule fails here: no such key: 1`},
		{Spec{Target: "stream", Expression: `stream.name != "a"`, Message: "x ${stream.metadata['q']}"}, `10:6 the expression of the rule fails here: no such key: q`},
		{Spec{Target: "policy", Expression: `false`, Message: `${timestamp("2026-01-02T03:04:05Z")} ${duration("5s")} ${1.5}`}, `1:1 2026-01-02T03:04:05Z 5s 1.5`},
		{Spec{Target: "policy", Expression: `false`, At: "via_socks5"}, `2:77 not true for the policy: false`},
		{Spec{Target: "policy", Expression: `[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a+b+c+d+e+f > 0))))))`},
			`1:1 the expression of the rule fails here: it costs too much: it takes more than 500000 steps`},
	} {
		test.spec.ID = "t/x"
		found := lint.Run(fixture(t), rules(t, test.spec), lint.Options{At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
		if len(found) != 1 || strings.TrimPrefix(found[0].Span.String(), "p.json:")+" "+found[0].Message != test.want {
			t.Errorf("%s: found %v, want %s", test.spec.Expression, found, test.want)
		}
	}
}

// TestCostOfPolicy checks that evaluations of low cost stop when their total cost is too
// high.
func TestCostOfPolicy(t *testing.T) {
	defer func(old uint64) { maxRule = old }(maxRule)
	maxRule = 100_000
	var b strings.Builder
	b.WriteString(`{"s": [`)
	const streams = 200
	for i := range streams {
		fmt.Fprintf(&b, `{"s%d": {}},`, i)
	}
	b.WriteString(`{"last": {}}]}`)
	d := schema.Parse("p.json", []byte(b.String()))
	for _, test := range []struct {
		expression string
		most       int // findings
	}{
		{`policy.streams.filter(s, s.name == stream.name).size() == 1`, 1},
		{`[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, policy.streams.size() > a))))`, 5}, // each fails
		{`stream.name.matches("(a?){900}(a?){900}(a?){900}" + stream.name)`, 1},
	} {
		found := lint.Run(d, rules(t, Spec{ID: "t/x", Target: "stream", Expression: test.expression}), lint.Options{})
		if n := len(found); n == 0 || n > test.most || !strings.Contains(found[n-1].Message, "too much for a policy of this size") {
			t.Errorf("%s: found %d: %v", test.expression, n, found)
		}
	}
}

// TestCostOfRules checks that rules of low cost stop when their total cost is too high, and
// that each rule that was not checked is reported.
func TestCostOfRules(t *testing.T) {
	defer func(old uint64) { maxRules = old }(maxRules)
	maxRules = 1000
	d := schema.Parse("p.json", []byte(`{"s": [{"a": {}}, {"b": {}}]}`))
	var specs []Spec
	for i := range 20 {
		specs = append(specs, Spec{ID: fmt.Sprintf("t/x%c", 'a'+i), Target: "stream", Expression: `[1,2,3,4,5,6,7,8,9].all(a, stream.name.size() < 2)`})
	}
	found := lint.Run(d, rules(t, specs...), lint.Options{})
	if n := len(found); n < 5 || n > 19 {
		t.Fatalf("found %d: %v", n, found)
	}
	for _, g := range found {
		if !strings.Contains(g.Message, "the rules together cost too much") {
			t.Errorf("%s: %s", g.Rule, g.Message)
		}
	}
}

// TestRegexSize checks that a rule with a regular expression that is large when compiled is
// rejected.
func TestRegexSize(t *testing.T) {
	_, wrong := Compile(Spec{ID: "t/x", Target: "stream", Expression: `stream.name.matches("(a?){900}(a?){900}(a?){900}")`})
	if len(wrong) != 1 || !strings.Contains(wrong[0].Message, "exceeds limit") {
		t.Errorf("got %v", wrong)
	}
}

// TestRange checks that a rule is checked if its range contains one of the versions that
// the policy must work with.
func TestRange(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "4.1 4.2 4.3 4.4 4.5 5.0"}, {">=4.3 <5.0", "4.3 4.4 4.5"}, {"4.3", "4.3"}, {"=5.0", "5.0"}, {"> 4.1", "error"}, {"<=4.2", "4.1 4.2"},
		{">4.5 <5.0", "error"}, {">=4.3.2", "error"}, {"~4.3", "error"}, {" ", "error"},
	} {
		var r Range
		var err error
		if test.text != "" {
			r, err = ParseRange(test.text)
		}
		var got []string
		for _, v := range r.Versions() {
			found := lint.Run(fixture(t), rules(t, Spec{ID: "t/x", Target: "policy", Expression: "false", LWS: r}), lint.Options{LWS: []schema.Version{v}})
			if len(found) != 1 {
				t.Errorf("%q: lws %v: found %v", test.text, v, found)
			}
			got = append(got, v.String())
		}
		if err != nil {
			got = []string{"error"}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%q: %q (%v), want %q", test.text, got, err, test.want)
		}
	}
}

// TestView checks that the view has a field for each key, except lists of
// definitions and the settings of sspolicy, and each field can be used for each
// definition of the fixtures.
func TestView(t *testing.T) {
	for _, c := range classes {
		for _, k := range schema.Keys(c.section) {
			inView := slices.ContainsFunc(fieldNames(c), func(name string) bool { return fields()[c][name].key == k })
			section := c == policyClass && (k.Is("array") || k.Is("object"))
			if inView == section {
				t.Errorf("%s.%s: in the view: %v", c.name, k.Name, inView)
			}
		}
		for name, f := range fields()[c] {
			if f.doc == "" || f.name != name {
				t.Errorf("%s.%s is not documented", c.name, name)
			}
			if row := fmt.Sprintf("| `%s` |", name); !strings.Contains(ViewPage(), row) {
				t.Errorf("the page lacks %s.%s", c.name, name)
			}
		}
	}
	files, err := filepath.Glob("../../fixtures/*.json")
	if err != nil {
		t.Fatal(err)
	}
	docs := []*schema.Document{fixture(t)}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, schema.Parse(file, text))
	}
	for _, c := range classes {
		for _, name := range fieldNames(c) {
			x := c.name + "." + name
			// The second part is false if has() and the value disagree.
			r := rules(t, Spec{ID: "t/x", Target: c.name, Expression: fmt.Sprintf("%[1]s == %[1]s && (has(%[1]s) || true)", x)})
			for _, d := range docs {
				if found := lint.Run(d, r, lint.Options{}); len(found) > 0 {
					t.Errorf("%s: %s: %v", d.Source.Name, x, found)
				}
			}
		}
	}
}

// FuzzCompile checks that no rule panics, that mistakes are inside the text, and that
// compiled rules can be checked.
func FuzzCompile(f *testing.F) {
	f.Add("stream", `stream.tls && stream.trust_store.startsWith("corp-")`, "${stream.name} is ${")
	f.Add("certificate", `certificate.not_after - now < duration("24h")`, "${certificate.not_after}")
	f.Add("policy", `policy.streams.all(s, s.metadata.exists(k, k.matches("^[a-z]+$")))`, "a ${policy.streams[0].name} b")
	f.Add("retry", "retry.backoff[99] > 1 ||\n 'ä' == retry.nam", "")
	d := fixture(f)
	f.Fuzz(func(t *testing.T, target, expression, message string) {
		s := Spec{ID: "t/x", Target: target, Expression: expression, Message: message}
		r, wrong := Compile(s)
		for _, m := range wrong {
			limit := map[string]int{"expression": len(expression), "message": len(message)}[m.In]
			if m.Message == "" || m.Offset < 0 || m.Offset > limit {
				t.Errorf("%q, %q: %+v", expression, message, m)
			}
		}
		if (r == nil) != (wrong != nil) {
			t.Errorf("rule %v, mistakes %v", r, wrong)
		}
		if r != nil {
			lint.Run(d, []*lint.Rule{r}, lint.Options{})
		}
	})
}

// TestDocs checks that the expressions in the table of the documentation compile for the
// target that they name.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/custom-rules.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		row := strings.Split(strings.ReplaceAll(line, `\|`, "\x00"), "|")
		if len(row) != 4 || !strings.Contains(row[1], ".") {
			continue
		}
		expression := strings.Trim(strings.ReplaceAll(row[1], "\x00", "|"), " `")
		for _, c := range classes {
			if regexp.MustCompile(`\b` + c.name + `\.`).MatchString(expression) {
				n++
				found := lint.Run(fixture(t), rules(t, Spec{ID: "t/x", Target: c.name, Expression: expression}), lint.Options{})
				if slices.ContainsFunc(found, func(g schema.Diagnostic) bool { return strings.Contains(g.Message, "fails") }) {
					t.Errorf("%s: %v", expression, found)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d expressions were found", n)
	}
}
