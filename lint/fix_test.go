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
		name, policy, want string
	}{
		{"nothing to fix", `{"s":[]}`, `{"s":[]}`},
		{"sections in order, with their comments",
			"{\n  # streams\n  # of ours\n  \"s\": [{\"a\":{\"retry\":\"r\"}}],\n  \"release\": \"1\",\n  \"retry\": [{\"r\":{}}]\n}\n",
			"{\n  \"retry\": [{\"r\":{}}],\n  \"release\": \"1\",\n  # streams\n  # of ours\n  \"s\": [{\"a\":{\"retry\":\"r\"}}]\n}\n"},
		{"a comment behind a section can't be moved",
			"{\n  \"s\": [{\"a\":{\"retry\":\"r\"}}], # after\n  \"retry\": [{\"r\":{}}]\n}\n",
			"{\n  \"s\": [{\"a\":{\"retry\":\"r\"}}], # after\n  \"retry\": [{\"r\":{}}]\n}\n"},
		{"another name is no misspelt one",
			`{"retry":[{"fast1":{}}],"s":[{"a":{"retry":"fast2"}}]}`, `{"retry":[{"fast1":{}}],"s":[{"a":{"retry":"fast2"}}]}`},
		{"several forward references at once",
			`{"s":[{"a":{"retry":"r","tls_trust_store":"t"}}],"trust_stores":[{"name":"t","stack":["c"]}],"certs":[{"c":"MIIB"}],"retry":[{"r":{}}]}`,
			`{"retry":[{"r":{}}],"certs":[{"c":"MIIB"}],"trust_stores":[{"name":"t","stack":["c"]}],"s":[{"a":{"retry":"r","tls_trust_store":"t"}}]}`},
		{"misspelt, in a misspelt place", `{"s":[{"a":{"prot":80,"Retry":"defualt",}}],"retry":[{"default":{"backof":[1]}}]}`,
			`{"retry":[{"default":{"backoff":[1]}}],"s":[{"a":{"port":80,"retry":"default"}}]}`},
		{"two keys are as near", `{"s":[{"a":{"attr_low_cos":true,"mqtt_rill_qos":1}}]}`, `{"s":[{"a":{"attr_low_cost":true,"mqtt_will_qos":1}}]}`},
		{"types", `{"s":[{"a":{"tls":"true","port":"443","opportunistic":0,"endpoint":12}}]}`, `{"s":[{"a":{"tls":true,"port":443,"opportunistic":false,"endpoint":"12"}}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _ := lint.Fix(schema.Parse("p", []byte(test.policy)), rules.All(), lint.Options{})
			if d := cmp.Diff(test.want, got.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

// The example policy of lws's README becomes one that loads but for its
// certificates, which are shortened there.
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

// Fixing ends, at a text that parses if it ever did, and fixing that again
// changes nothing.
func FuzzFix(f *testing.F) {
	for _, r := range rules.All() {
		f.Add(r.Bad)
		f.Add(r.Good)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := schema.Parse("p", []byte(text))
		fixed, n := lint.Fix(d, rules.All(), lint.Options{})
		if n == 0 {
			return
		}
		if !schema.HasErrors(d.Syntax) && schema.HasErrors(fixed.Syntax) {
			t.Fatalf("%q was fixed to %q: %s", text, fixed, fixed.Syntax[0].Message)
		}
		if again, _ := lint.Fix(fixed, rules.All(), lint.Options{}); again.String() != fixed.String() {
			t.Fatalf("%q was fixed to %q, and again to %q", text, fixed, again)
		}
	})
}
