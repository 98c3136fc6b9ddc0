package lint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

func TestFix(t *testing.T) {
	for _, test := range []struct {
		name, policy, want string // with unsafe fixes
	}{
		{"nothing to fix", `{"s":[]}`, `{"s":[]}`},
		{"sections in order, with their comments",
			"{\n  # streams\n  # of ours\n  \"s\": [{\"a\":{\"retry\":\"r\"}}],\n  \"release\": \"1\",\n  \"retry\": [{\"r\":{}}]\n}\n",
			"{\n  \"retry\": [{\"r\":{}}],\n  \"release\": \"1\",\n  # streams\n  # of ours\n  \"s\": [{\"a\":{\"retry\":\"r\"}}]\n}\n"},
		{"a comment behind a section can't be moved",
			"{\n  \"s\": [{\"a\":{\"retry\":\"r\"}}], # after\n  \"retry\": [{\"r\":{}}]\n}\n",
			"{\n  \"s\": [{\"a\":{\"retry\":\"r\"}}], # after\n  \"retry\": [{\"r\":{}}]\n}\n"},
		{"another name is not a misspelling",
			`{"retry":[{"fast1":{}}],"s":[{"a":{"retry":"fast2"}}]}`, `{"retry":[{"fast1":{}}],"s":[{"a":{"retry":"fast2"}}]}`},
		{"several forward references at once",
			`{"s":[{"a":{"retry":"r"}}],"trust_stores":[{"name":"t","stack":["c"]}],"certs":[{"c":"MIIB"}],"retry":[{"r":{}}]}`,
			`{"retry":[{"r":{}}],"certs":[{"c":"MIIB"}],"trust_stores":[{"name":"t","stack":["c"]}],"s":[{"a":{"retry":"r"}}]}`},
		{"a fix that would show another mistake",
			`{"s":[{"a":{"tls_trust_store":"t"}}],"trust_stores":[{"name":"t","stack":["c"]}],"certs":[{"c":"MIIB"}]}`,
			`{"s":[{"a":{"tls_trust_store":"t"}}],"trust_stores":[{"name":"t","stack":["c"]}],"certs":[{"c":"MIIB"}]}`},
		{"misspelt, in a misspelt place", `{"s":[{"a":{"prot":80,"Retry":"defualt",}}],"retry":[{"default":{"backof":[1]}}]}`,
			`{"retry":[{"default":{"backoff":[1]}}],"s":[{"a":{"port":80,"retry":"default"}}]}`},
		{"two keys are as near", `{"s":[{"a":{"protocol":"mqtt","attr_low_cos":true,"mqtt_will_topic":"t","mqtt_rill_qos":1}}]}`, `{"s":[{"a":{"protocol":"mqtt","attr_low_cost":true,"mqtt_will_topic":"t","mqtt_will_qos":1}}]}`},
		{"metadata misspelt where it is declared", `{"s":[{"a":{"endpoint":"${region}.x.org","http_url":"${region}","metadata":[{"regoin":""}]}}]}`,
			`{"s":[{"a":{"endpoint":"${region}.x.org","http_url":"${region}","metadata":[{"region":""}]}}]}`},
		{"metadata misspelt where it is used", `{"s":[{"a":{"endpoint":"${regoin}.x.org","http_url":"${region}","metadata":[{"region":""}]}}]}`,
			`{"s":[{"a":{"endpoint":"${region}.x.org","http_url":"${region}","metadata":[{"region":""}]}}]}`},
		{"a hidden info does not keep the mistake",
			`{"retry":[{"r":{"backof":[1000,2000]}}],"s":[{"a":{"endpoint":"x.org","port":80,"http_method":"GET","http_url":"","retry":"r"}}]}`,
			`{"retry":[{"r":{"backoff":[1000,2000]}}],"s":[{"a":{"endpoint":"x.org","port":80,"http_method":"GET","http_url":"","retry":"r"}}]}`},
		{"types", `{"s":[{"a":{"tls":"true","port":"443","opportunistic":0,"endpoint":12}}]}`, `{"s":[{"a":{"tls":true,"port":443,"opportunistic":false,"endpoint":"12"}}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _ := lint.Fix(schema.Parse("p", []byte(test.policy)), rules.All(), lint.Options{UnsafeFixes: true})
			if d := cmp.Diff(test.want, got.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestFixReadmeExample checks that the fixed example policy of lws's README loads, except
// for its certificates, which the README abbreviates.
func TestFixReadmeExample(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../fixtures/readme-example.json"))
	if err != nil {
		t.Fatal(err)
	}
	fixed, _ := lint.Fix(schema.Parse("readme.json", text), rules.All(), lint.Options{})
	for _, d := range lint.Run(fixed, rules.All(), lint.Options{}) {
		if d.Severity == schema.Error && d.Rule != "cert-encoding" {
			t.Errorf("left: %s: %s [%s]\n%s", d.Span, d.Message, d.Rule, fixed)
		}
	}
}

// harmless are texts that careless fixes would damage, with the result of --fix.
var harmless = []struct {
	name, policy, want string
}{
	{"byte order mark", "\ufeff{\"s\":[]}", `{"s":[]}`},
	{"byte order mark and comment", "\ufeff# c\n{\"s\":[]}", "{ # c\n\"s\":[]}"},
	{"server in quotes", `{"s":[{"a":{"server":"true","protocol":"raw","port":1}}]}`, `{"s":[{"a":{"server":true,"protocol":"raw","port":1}}]}`},
	{"server that is not a flag", `{"s":[{"a":{"server":"maybe","protocol":"raw","port":1}}]}`, `{"s":[{"a":{"server":"maybe","protocol":"raw","port":1}}]}`},
	{"template of a number", `{"s":[{"a":{"endpoint":"x.org","port": @PORT@,"tls":true}}]}`, `{"s":[{"a":{"endpoint":"x.org","port": @PORT@,"tls":true}}]}`},
	{"template of a string", `{"s":[{"a":{"endpoint":@HOST@,"port":80}}]}`, `{"s":[{"a":{"endpoint":"@HOST@","port":80}}]}`},
	{"flags in other words", `{"s":[{"a":{"nailed_up": yes,"tls":True,"opportunistic":off}}]}`, `{"s":[{"a":{"nailed_up": true,"tls":true,"opportunistic":false}}]}`},
	{"strings for flags", `{"s":[{"a":{"tls":"on","ws_binary":"perhaps"}}]}`, `{"s":[{"a":{"tls":true,"ws_binary":"perhaps"}}]}`},
	{"other numbers", `{"s":[{"a":{"port":0x10,"timeout_ms":30s,"client_cert":+1,"attr_priority":1.0}}],"retry":[{"r":{"svalidping":"1min","backoff":["2s",1e3]}}]}`,
		`{"s":[{"a":{"port":16,"timeout_ms":30000,"client_cert":1,"attr_priority":1}}],"retry":[{"r":{"svalidping":60,"backoff":[2000,1000]}}]}`},
	{"numbers that do not fit", `{"s":[{"a":{"port":"70000","timeout_ms":"2 weeks","mqtt_qos":"three"}}]}`, `{"s":[{"a":{"port":"70000","timeout_ms":"2 weeks","mqtt_qos":"three"}}]}`},
	{"C", `/* firmware */ static const char policy[] = "{\"s\":[]}";`, `/* firmware */ static const char policy[] = "{\"s\":[]}";`},
	{"an IAM document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",}]}`, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",}]}`},
	{"package.json", `{"name":"x","version":"1.0.0",}`, `{"name":"x","version":"1.0.0",}`},
	{"an array", `[]`, `[]`},
	{"UTF-16", "\xff\xfe{\x00}\x00", "\xff\xfe{\x00}\x00"},
	{"equals sign", `{"s":[{"a":{"tls"= true,"port" => 443}}]}`, `{"s":[{"a":{"tls": true,"port" : 443}}]}`},
	{"curly quotes", "{“s”:[{“a”:{“endpoint”:“x.org”}}]}", `{"s":[{"a":{"endpoint":"x.org"}}]}`},
	{"no-break space", "{\"s\":\u00a0[{\u00a0\"a\":{}}]}", `{"s": [{ "a":{}}]}`},
	{"header with its value", `{"s":[{"a":{"endpoint":"x.org","port":80,"http_auth_header":"authorization: Bearer abc"}}]}`,
		`{"s":[{"a":{"endpoint":"x.org","port":80,"http_auth_header":"authorization: Bearer abc"}}]}`},
	{"metadata misspelt where it is declared", `{"s":[{"a":{"endpoint":"${region}.x.org","http_url":"${region}","metadata":[{"regoin":""}]}}]}`,
		`{"s":[{"a":{"endpoint":"${region}.x.org","http_url":"${region}","metadata":[{"regoin":""}]}}]}`},
	{"PEM", "{\"certs\":[{\"a\":\"-----BEGIN CERTIFICATE-----\nMIIBbzCCARWgAwIBAgIBATAKBggqhkjOPQQDAjAe\nMRwwGgYDVQQDExNz\n-----END CERTIFICATE-----\n\"}]}",
		`{"certs":[{"a":"MIIBbzCCARWgAwIBAgIBATAKBggqhkjOPQQDAjAeMRwwGgYDVQQDExNz"}]}`},
	{"base64 in lines", "{\"certs\":[{\"a\":\"MIIBbzCCARWgAwIBAgIBATAKBggqhkjOPQQDAjAe\r\n  MRwwGgYDVQQDExNz\"}]}",
		`{"certs":[{"a":"MIIBbzCCARWgAwIBAgIBATAKBggqhkjOPQQDAjAeMRwwGgYDVQQDExNz"}]}`},
	{"a quotation mark too few", `{"s":[{"a":{"endpoint: "x.org","port":80}}]}`, `{"s":[{"a":{"endpoint": "x.org","port":80}}]}`},
	{"a brace too few", `{"s":[{"a":{"port":80},{"b":{"port":81}}]}`, `{"s":[{"a":{"port":80}},{"b":{"port":81}}]}`},
	{"a store with a misspelt stack", `{"certs":[{"c":"MIIB"}],"trust_stores":[{"name":"t","stak":["c"]}]}`, `{"certs":[{"c":"MIIB"}],"trust_stores":[{"name":"t","stack":["c"]}]}`},
	{"a key that is there already", `{"s":[{"a":{"port":80,"Port":8080}}]}`, `{"s":[{"a":{"port":80,"Port":8080}}]}`},
	{"a key for another type", `{"retry":[{"r":{"jitter":"hi"}}]}`, `{"retry":[{"r":{"jitter":"hi"}}]}`},
}

func TestHarmless(t *testing.T) {
	for _, test := range harmless {
		t.Run(test.name, func(t *testing.T) {
			d := schema.Parse("p", []byte(test.policy))
			got, _ := lint.Fix(d, rules.All(), lint.Options{})
			if d := cmp.Diff(test.want, got.Source.Text); d != "" {
				t.Error(d)
				for _, g := range lint.Run(got, rules.All(), lint.Options{}) {
					t.Logf("%s: %s [%s] %v", g.Span, g.Message, g.Rule, g.Fixes)
				}
			}
		})
	}
}
