package overview

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/secure-streams/sspolicy/internal/breaking"
	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

var today = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// write returns the page about a policy with the findings of lint.
func write(t testing.TB, text string) string {
	t.Helper()
	d := schema.Scan("policy.json", []byte(text))
	var b bytes.Buffer
	s := Subject{Document: d, Diagnostics: lint.Run(d, rules.All(), lint.Options{At: today}), Base: "old.json"}
	s.Changes = breaking.Compare(schema.Scan("old.json", []byte(`{"s": [{"gone": {}}]}`)), d, breaking.Options{})
	if err := Write(&b, []Subject{s}, Options{Version: "1.0", At: today}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// check checks laws of every page, and returns its text.
func check(t testing.TB, page string) string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids, links := map[string]bool{}, []string{}
	scripts, rules := 0, ""
	var text strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			text.WriteString(n.Data + "\n")
		}
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script":
			scripts++
		case "img", "link", "iframe", "object", "embed", "form", "base", "use", "image", "foreignObject", "a":
			if n.Data != "a" {
				t.Errorf("element %s", n.Data)
			}
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "src", a.Key == "srcset", strings.Contains(strings.ToLower(a.Val), "url("):
				t.Errorf("attribute %s=%q", a.Key, a.Val)
			case a.Key == "href" && !strings.HasPrefix(a.Val, "#"):
				t.Errorf("link to %q", a.Val)
			case a.Key == "href":
				links = append(links, a.Val[1:])
			case a.Key == "id" && ids[a.Val]:
				t.Errorf("id %q is there twice", a.Val)
			case a.Key == "id":
				ids[a.Val] = true
			case a.Key == "content" && strings.HasPrefix(a.Val, "default-src"):
				rules = a.Val
			}
		}
	}
	if scripts != 1 || !strings.HasPrefix(rules, "default-src 'none';") {
		t.Errorf("%d scripts, with the rules %q", scripts, rules)
	}
	for _, l := range links {
		if !ids[l] {
			t.Errorf("link to %q, which is not there", l)
		}
	}
	return text.String()
}

// certificate returns a certificate in base64.
func certificate(from time.Time) string {
	return base64.StdEncoding.EncodeToString(testcert.New("ca").Certify(testcert.Key(), from, "device.example.com").Certificate[0])
}

func TestWrite(t *testing.T) {
	page := write(t, `{
  "product": "station", "release": "7",
  "retry": [{"default": {"backoff": [1000, 5000], "conceal": 3}}, {"always": {"backoff": [2000], "conceal": 65535}}],
  "certs": [{"old": "`+certificate(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))+`"}, {"odd": "MAA="}],
  "trust_stores": [{"name": "store", "stack": ["old"]}],
  "s": [
    {"a": {"endpoint": "example.com", "port": 443, "tls": true, "tls_trust_store": "store", "protocol": "h1", "http_method": "GET", "http_url": "v1/${id}", "metadata": [{"id": ""}], "retry": "default"}},
    {"b": {"endpoint": "example.com", "port": 80, "protocol": "ws", "http_url": "", "retry": "always"}},
    {"c": {"endpoint": "example.com", "port": 80, "protocol": "raw", "retry": "none"}}
  ]
}`)
	text := check(t, page)
	for _, want := range []string{
		"station 7", "Gives up after 3 retries in 11s.", "Never gives up.", "lws 4.4 to 5.0, from JSON",
		"GET v1/${id}", "example.com:443", "no TLS", "store", "has ended", "not a certificate",
		`backoff scheme "none" is not defined`, "None: the policy has errors.", "Changes from old.json", "Could not be compared",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if again := write(t, `{"s": []}`); again != write(t, `{"s": []}`) {
		t.Error("the same policy gives another page")
	}
}

func TestSizes(t *testing.T) {
	text := check(t, write(t, `{"s": [{"a": {"endpoint": "example.com", "port": 80, "protocol": "mqtt", "mqtt_topic": "t", "mqtt_subscribe": "s", "mqtt_birth_topic": "b"}}]}`))
	for _, want := range []string{`"gone": the streamtype is gone`, "[streamtype-removed]", "needs lws 4.3", "bytes of tables on arm", "t ← s"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
}

func TestSeveral(t *testing.T) {
	var subjects []Subject
	for _, name := range []string{"one.json", "two.json"} {
		subjects = append(subjects, Subject{Document: schema.Scan(name, []byte(`{"s": [{"a": {"endpoint": "e", "port": 1, "protocol": "raw"}}]}`))})
	}
	var b bytes.Buffer
	if err := Write(&b, subjects, Options{At: today}); err != nil {
		t.Fatal(err)
	}
	if text := check(t, b.String()); !strings.Contains(text, "one.json") || !strings.Contains(text, "two.json") || strings.Contains(text, "Changes from") {
		t.Error("the page does not show both policies, or shows changes")
	}
}

func TestHostileNames(t *testing.T) {
	for _, name := range []string{`</script><script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, "</style>", "]]><!--", `javascript:alert(1)`, "{{.}}", "\x00", `</title>`} {
		q := schema.Quote(name)
		page := write(t, strings.ReplaceAll(`{"product": Q, "retry": [{Q: {"backoff": [1]}}], "certs": [{Q: Q}], "trust_stores": [{"name": Q, "stack": [Q]}],
			"s": [{Q: {"endpoint": Q, "port": Q, "protocol": Q, "retry": Q, "tls_trust_store": Q, "tls": true, "http_url": Q, "metadata": [{Q: Q}]}}]}`, "Q", q))
		if text := check(t, page); !strings.Contains(text, strings.ReplaceAll(name, "\x00", "\ufffd")) {
			t.Errorf("the page does not show %q", name)
		}
	}
}

// TestPolicies checks that the policies of the tree, and those of SSPOLICY_CORPUS,
// have a page.
func TestPolicies(t *testing.T) {
	for _, file := range policies(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			check(t, write(t, string(text)))
		})
	}
}

func policies(tb testing.TB) (files []string) {
	patterns := []string{"../../fixtures/*.json"}
	if dir := os.Getenv("SSPOLICY_CORPUS"); dir != "" {
		patterns = append(patterns, filepath.Join(dir, "*", "*.json"))
	}
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			tb.Fatal(err)
		}
		files = slices.Concat(files, found)
	}
	return files
}

func TestLimits(t *testing.T) {
	var streams []string
	for i := range mostFindings + 50 {
		streams = append(streams, fmt.Sprintf(`{"s%d": {"endpoint": "e", "port": 1, "protocol": "raw", "retry": "none"}}`, i))
	}
	text := check(t, write(t, `{"s": [`+strings.Join(streams, ",")+`]}`))
	if !strings.Contains(text, "more are not shown here.") {
		t.Error("the page shows all findings")
	}
}

func FuzzWrite(f *testing.F) {
	for _, file := range policies(f) {
		if text, err := os.ReadFile(file); err == nil && len(text) < 20_000 {
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) { check(t, write(t, text)) })
}
