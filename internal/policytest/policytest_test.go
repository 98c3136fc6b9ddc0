package policytest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/runtime/h3"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/mqtt"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

var options = Options{
	Hurry: 1000,
	Transports: func(int) []transport.Transport {
		return []transport.Transport{h3.New(http.SigV4), http.New(http.SigV4), mqtt.New(), raw.New(raw.TLS), ws.New()}
	},
}

const policyText = `{
  "retry": [{"r": {"backoff": [1000, 2000, 60000], "conceal": 65535, "jitterpc": 50}}, {"once": {"backoff": [100], "conceal": 1, "jitterpc": 1}}],
  "certs": [{"root": "CERT"}],
  "trust_stores": [{"name": "ours", "stack": ["root"]}],
  "auth": [{"name": "aws", "type": "sigv4", "blob": 0}],
  "s": [
    {"get": {"endpoint": "${host}.example.com", "port": 443, "protocol": "h1", "tls": true, "tls_trust_store": "ours", "http_method": "GET", "http_url": "v1/${id}?x=1",
      "metadata": [{"host": ""}, {"id": ""}, {"lang": "Accept-Language:"}], "http_auth_header": "Authorization:", "http_auth_preamble": "Bearer ", "retry": "r"}},
    {"post": {"endpoint": "p.example.com", "port": 80, "protocol": "h2", "http_method": "POST", "http_url": "p", "metadata": [{"mime": "Content-Type:"}], "retry": "once"}},
    {"form": {"endpoint": "p.example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "f", "http_multipart_name": "n", "rideshare": "second", "retry": "once"}},
    {"second": {"endpoint": "p.example.com", "port": 80, "protocol": "h1", "http_method": "POST", "http_url": "f", "http_multipart_name": "m", "retry": "once"}},
    {"sock": {"endpoint": "w.example.com", "port": 443, "protocol": "ws", "tls": true, "http_url": "chat", "ws_subprotocol": "v1", "retry": "r"}},
    {"url": {"endpoint": "http://u.example.com:8080/deep/path?q", "port": 443, "protocol": "h1", "tls": true, "http_method": "GET", "http_url": "", "retry": "r"}},
    {"unix": {"endpoint": "+@sock", "protocol": "h1", "http_method": "GET", "http_url": "u", "retry": "r"}},
    {"tele": {"endpoint": "m.example.com", "port": 8883, "protocol": "mqtt", "tls": true, "mqtt_topic": "dev/${id}/up", "mqtt_subscribe": "dev/${id}/down", "metadata": [{"id": ""}], "retry": "r"}},
    {"plain": {"endpoint": "10.0.0.1", "port": 7, "protocol": "raw", "via-socks5": "127.0.0.1:1080", "retry": "r"}},
    {"s3": {"endpoint": "s3.example.com", "port": 443, "protocol": "h1", "tls": true, "http_method": "GET", "http_url": "k", "use_auth": "aws", "aws_region": "region", "aws_service": "service",
      "metadata": [{"region": ""}, {"service": ""}], "retry": "r"}},
    {"serve": {"server": true, "protocol": "raw", "port": 8080}}
  ]
}`

const h3Text = `{"s": [
  {"quick": {"endpoint": "q.example.com", "port": 443, "protocol": "h3", "tls": true, "http_method": "GET", "http_url": "q"}}
]}`

// write writes a policy and a test file for it.
func write(t testing.TB, text, tests string) *File {
	t.Helper()
	dir := t.TempDir()
	weather, err := os.ReadFile("../../fixtures/weather.json")
	if err != nil {
		t.Fatal(err)
	}
	cert := strings.SplitN(strings.SplitN(string(weather), `{"fixture_ca": "`, 2)[1], `"`, 2)[0]
	if err := os.WriteFile(filepath.Join(dir, "p.json"), []byte(strings.Replace(text, "CERT", cert, 1)), 0o666); err != nil {
		t.Fatal(err)
	}
	f, wrong := Parse(filepath.Join(dir, "t.json"), []byte(`{"policy": "p.json", "tests": [`+tests+`]}`))
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return f
}

func failures(t testing.TB, f *File) (all []string) {
	t.Helper()
	results, err := f.Run(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		for _, fail := range r.Failures {
			all = append(all, fmt.Sprintf("%s: %s: want %s, got %s %s", r.Name, fail.Field, fail.Want, fail.Got, fail.Problem))
		}
	}
	return all
}

// TestRun checks that tests of streams of all protocols pass.
func TestRun(t *testing.T) {
	f := write(t, policyText, `
  {"stream": "get", "metadata": {"host": "eu", "id": "a b&c", "lang": "da"}, "expect": {
    "protocol": "h1", "endpoint": "eu.example.com:443", "tls": true, "trust": "ours", "method": "GET", "url": "https://eu.example.com/v1/a%20b%26c?x=1",
    "headers": {"accept-language": "da", "Authorization": "Bearer <auth.0>", "cookie": null}, "retry": ["1s to 1.5s", "2s to 3s", "60s to 90s", "1m to 1m30s"]}},
  {"stream": "get", "lws": ["4.3", "5.0"], "metadata": {"host": "eu", "id": "a&c"}, "expect": {"url": "https://eu.example.com/v1/a&c?x=1"}},
  {"stream": "get", "lws": "4.3", "metadata": {"host": "eu", "id": "a&c"}, "expect": {"retry": ["1s to 1.5s", "2s to 3s"]}},
  {"stream": "get", "lws": "4.5", "metadata": {"host": "eu", "id": "a&c"}, "expect": {"retry": ["1s to 1.5s", "1s to 1.5s"]}},
  {"stream": "post", "metadata": {"mime": "text/plain"}, "expect": {
    "protocol": "h2", "endpoint": "p.example.com:80", "tls": false, "method": "POST", "url": "http://p.example.com/p", "headers": {"content-type": "text/plain"}, "retry": ["100ms", "gives up"]}},
  {"stream": "form", "expect": {"url": "http://p.example.com/f", "headers": {"content-type": "multipart/form-data"}}},
  {"stream": "sock", "expect": {"url": "wss://w.example.com/chat", "method": "GET", "headers": {"sec-websocket-protocol": "v1"}, "trust": ""}},
  {"stream": "url", "expect": {"endpoint": "u.example.com:8080", "tls": false, "url": "http://u.example.com:8080/deep/path?q"}},
  {"stream": "unix", "expect": {"endpoint": "+@sock", "method": "GET"}},
  {"stream": "tele", "metadata": {"id": "7"}, "expect": {"endpoint": "m.example.com:8883", "topic": "dev/7/up", "subscribe": "dev/7/down", "tls": true}},
  {"stream": "plain", "expect": {"endpoint": "10.0.0.1:7", "proxy": "127.0.0.1:1080", "tls": false}},
  {"stream": "s3", "metadata": {"region": "eu", "service": "s3"}, "expect": {"headers": {"authorization": null}, "url": "https://s3.example.com/k"}},
  {"stream": "post", "fault": "refused", "expect": {"states": "CRE POL CNG UNR POL CNG UNR ARF", "retry": ["100ms", "gives up"], "protocol": "h2"}},
  {"stream": "post", "fault": "http-status", "params": {"status": "404"}, "expect": {"states": "CRE POL CNG …"}},
  {"stream": "tele", "fault": "refused"}`)
	for _, fail := range failures(t, f) {
		t.Error(fail)
	}
}

// TestH3 checks that a request over HTTP/3 is observed, and that a version of lws that
// rejects the policy fails the test.
func TestH3(t *testing.T) {
	const expect = `"expect": {"protocol": "h3", "endpoint": "q.example.com:443", "url": "https://q.example.com/q", "trust": "", "retry": ["gives up"]}`
	f := write(t, h3Text, `{"stream": "quick", `+expect+`}, {"stream": "quick", "lws": ["4.5", "5.0"], `+expect+`}`)
	got := failures(t, f)
	if len(got) != 1 || !strings.Contains(got[0], "quick, lws 4.5: ") || !strings.Contains(got[0], "lws 4.5 refuses the policy: ") {
		t.Errorf("failures %q", got)
	}
}

// TestFailures checks the messages and positions of expectations that fail or cannot be
// met.
func TestFailures(t *testing.T) {
	f := write(t, policyText, `
  {"stream": "gte"},
  {"stream": "serve", "expect": {"tls": false}},
  {"stream": "get", "metadata": {"x": "y"}, "expect": {"tls": true}},
  {"stream": "tele", "metadata": {"id": "a/b"}, "expect": {"tls": true}},
  {"stream": "post", "expect": {"url": "x", "headers": {"content-type": "y", "user-agent": null}, "topic": "t", "tls": true, "retry": ["1s"]}},
  {"stream": "post"},
  {"stream": "post", "fault": "tls-expired"},
  {"stream": "post", "fault": "refused", "expect": {"states": "CRE", "url": "x"}}`)
	got := failures(t, f)
	for i, want := range []string{
		`gte:  unknown streamtype "gte": did you mean get?`,
		`serve: streamtype "serve" is a server or local`,
		`get: metadata "x"`,
		`tele: metadata "id"`,
		`post: url: want "x", got "http://p.example.com/p"`,
		`post: headers.content-type: want "y", got null`,
		`post: topic: this streamtype has none`,
		`post: tls: want true, got false`,
		`post: retry: want ["1s"], got ["100ms"]`,
		`no expectations`,
		`post, tls-expired: fault tls-expired does not apply to streamtype "post"`,
		`post, refused: url: a test under a fault has none`,
		`post, refused: states: want "CRE", got "CRE POL CNG UNR POL CNG UNR ARF"`,
	} {
		ok := false
		for _, g := range got {
			all := true
			for part := range strings.SplitSeq(want, ": ") {
				all = all && strings.Contains(g, part)
			}
			ok = ok || all
		}
		if !ok {
			t.Errorf("%d: %s is missing in\n%s", i, want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 13 {
		t.Errorf("%d failures", len(got))
	}
}

// TestLongRequest checks that a request that the server rejects is a failure with a reason.
func TestLongRequest(t *testing.T) {
	got := failures(t, write(t, policyText, `
  {"stream": "get", "metadata": {"host": "h", "id": "1", "lang": "`+strings.Repeat("x", 2<<20)+`"}, "expect": {"tls": true}}`))
	if len(got) != 1 || !strings.Contains(got[0], "no request: ") || strings.Contains(got[0], "%!") {
		t.Errorf("got %.200q", got)
	}
}

// TestRecorded checks that recorded expectations pass and are stable, and that comments are
// kept. A test for several versions of lws keeps the expectations on which they disagree.
func TestRecorded(t *testing.T) {
	text := `{ // what it does
  "policy": "p.json",
  "tests": [
    {"stream": "get", "lws": ["4.3", "5.0"], "metadata": {"host": "eu", "id": "1"}}, # comment
    {
      "stream": "post",
      "expect": {},
    },
    {"stream": "sock", "expect": {"url": "x", /* y */ "headers": {"Sec-WebSocket-Protocol": null, "cookie": "x"}, "retry": ["1h"]}},
    {"stream": "tele", "metadata": {"id": "7"}, "fault": "refused"},
    {"stream": "nothing", "expect": {"url": "x"}},
    {"stream": "plain"}, {"stream": "unix"}, {"stream": "form"}
  ],
}`
	f := write(t, policyText, `{"stream": "get"}`)
	file := f.Source.Name
	record := func(text string) (string, int) {
		f, wrong := Parse(file, []byte(text))
		if len(wrong) > 0 {
			t.Fatalf("%v\n%s", wrong, text)
		}
		results, err := f.Run(context.Background(), options)
		if err != nil {
			t.Fatal(err)
		}
		return f.Recorded(results)
	}
	recorded, changed := record(text)
	if changed != 10 {
		t.Errorf("changed %d", changed)
	}
	for _, keep := range []string{"// what it does", "# comment", "/* y */", `"stream": "nothing", "expect": {"url": "x"}`, `"headers": {"Sec-WebSocket-Protocol": "v1", "cookie": null}, "retry": ["1s to 1.5s"]`} {
		if !strings.Contains(recorded, keep) {
			t.Errorf("%s is gone", keep)
		}
	}
	if strings.Count(recorded, `"retry": ["1s to 1.5s", "2s`) == 0 || strings.Contains(recorded[:strings.Index(recorded, "# comment")], "retry") {
		t.Errorf("retry of get is recorded although the versions disagree:\n%s", recorded)
	}
	if again, n := record(recorded); n != 0 {
		t.Errorf("%d changes again: %s", n, again)
	}
	f, _ = Parse(file, []byte(recorded))
	if got := failures(t, f); len(got) != 1 || !strings.Contains(got[0], "nothing") {
		t.Errorf("failures of what was recorded: %q", got)
	}
}

// TestParse checks the places of mistakes in a test file, and that the JSON Schema agrees
// where it can express the rule.
func TestParse(t *testing.T) {
	s := jsonschema.MustCompileString("policytest.schema.json", JSONSchema)
	for _, test := range []struct {
		text, want string
		beyond     bool // the schema cannot express the rule
	}{
		{`{"policy": "p.json", "tests": [{"stream": "a"}]}`, "", false},
		{`{"$schema": "x", "policy": "p.json", "overlays": ["o.json"], "tests": [{"stream": "a", "name": "n", "lws": "4.3", "metadata": {"a": "b"}, "fault": "http-status", "params": {"status": "404"}, "expect": {"states": "CRE …", "headers": {"a": null, "b": "c"}, "retry": ["1s"], "tls": true}},],}`, "", false},
		{`{"tests": [{"stream": "a"}]}`, "1:1 missing policy", false},
		{`{"policy": "p.json"}`, "1:1 missing tests", false},
		{`{"policy": "p.json", "tests": [{}]}`, "1:32 missing stream", false},
		{`{"policy": "p.json", "tests": [{"stream": "a", "lws": "9"}]}`, `1:55 unknown lws version "9"`, false},
		{`{"policy": "p.json", "tests": [{"stream": "a", "fault": "refusd"}]}`, `1:57 unknown fault "refusd" ("sspolicy fault list" lists them): did you mean refused?`, true},
		{`{"policy": "p.json", "tests": [{"stream": "a", "fault": "http-status", "params": {"status": "x"}}]}`, `1:82 parameter status`, true},
		{`{"policy": "p.json", "tests": [{"stream": "a", "params": {}}]}`, `1:58 params without a fault`, true},
		{`{"policy": "p.json", "tests": [{"stream": "a", "expect": {"states": "CRE"}}]}`, `1:69 states without a fault`, true},
		{`{"policy": "p.json", "tests": [{"stream": "a", "expect": {"uri": ""}}]}`, `1:59 unknown setting "uri": want one of endpoint, `, false},
		{`{"policy": "p.json", "tests": [{"stream": "a", "expect": {"tls": 1}}]}`, `1:66 want a boolean, got a number`, false},
		{`{"policy": "p.json", "tests": [{"stream": "a", "expect": {"retry": "1s"}}]}`, `1:68 want an array, got a string`, false},
		{`{"policy": "p.json", "tests": [{"stream": "a", "expect": {"headers": {"a": 1}}}]}`, `1:76 want a string, got a number`, false},
		{`{"release": "1", "s": [{"a": {}}]}`, `1:1 this is a policy, not a test file: pass a file such as {"policy": "t.json", "tests"`, false},
		{`{"policy": "p.json", "tests": [`, `1:31 not JSON`, true},
	} {
		_, wrong := Parse("t.json", []byte(test.text))
		got := ""
		if len(wrong) > 0 {
			got = strings.TrimPrefix(wrong[0].Span.String(), "t.json:") + " " + wrong[0].Message
		}
		if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s: %s, want %s", test.text, got, test.want)
		}
		_, plain, _ := config.Document("t.json", []byte(test.text))
		var v any
		if json.Unmarshal(plain, &v) == nil && !test.beyond {
			if err := s.Validate(v); (err != nil) != (test.want != "") {
				t.Errorf("%s: the schema says %v", test.text, err)
			}
		}
	}
	for _, f := range fields {
		if !strings.Contains(JSONSchema, fmt.Sprintf("%q: {", f.name)) {
			t.Errorf("the schema lacks %s", f.name)
		}
	}
}

// FuzzParse checks that no test file causes a panic, and that recording tests that did not
// run changes nothing.
func FuzzParse(f *testing.F) {
	f.Add(`{"policy": "p.json", "tests": [{"stream": "a", "lws": ["4.3"], "expect": {"headers": {"a": null}, "retry": ["1s"]}},]} # x`)
	f.Fuzz(func(t *testing.T, text string) {
		file, _ := Parse("t.json", []byte(text))
		var results []*Result
		for _, test := range file.Tests {
			results = append(results, &Result{Test: test})
		}
		if got, n := file.Recorded(results); got != text || n != 0 {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// TestCorpus checks that all client streams of a corpus make their request, unless their
// host depends on metadata.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("SSPOLICY_CORPUS")
	if dir == "" {
		t.Skip("SSPOLICY_CORPUS is not set")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	streams := 0
	for _, file := range files {
		p, err := sspolicy.Load(file, sspolicy.Options{Lint: lint.Options{}})
		if err != nil {
			continue
		}
		f := &File{Policy: file}
		for _, st := range p.Policy.StreamTypes {
			o := observation{st: st}
			if o.client() {
				f.Tests = append(f.Tests, &Test{Name: st.Name, Stream: st.Name})
			}
		}
		results, err := f.Run(context.Background(), options)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, r := range results {
			streams++
			if r.got == nil && !strings.Contains(r.Failures[0].Problem, "bad endpoint") { // the endpoint depends on metadata
				t.Errorf("%s: %s: %s", file, r.Name, r.Failures[0].Problem)
			}
		}
	}
	if streams == 0 {
		t.Error("no streams")
	}
}
