package rules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// TestFixKinds checks that rules offer fixes of the kind that they declare, in their
// examples and in the fixtures.
func TestFixKinds(t *testing.T) {
	seen := map[string]map[bool]bool{} // by rule and safety
	look := func(text string, o lint.Options) {
		for _, g := range lint.Run(schema.Parse("p", []byte(text)), All(), o) {
			for _, f := range g.Fixes {
				if seen[g.Rule] == nil {
					seen[g.Rule] = map[bool]bool{}
				}
				seen[g.Rule][f.Safe] = true
			}
		}
	}
	files, err := filepath.Glob("../../fixtures/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		look(string(text), lint.Options{})
	}
	for _, r := range All() {
		look(r.Bad, lint.Options{LWS: r.Versions, With: Groups()})
	}
	for _, text := range []string{ // not covered by the examples
		`{"auth":[{"name":"a","streamtype":"tokn"}],"s":[{"token":{}}]}`,
		`{"s":[{"a":{"Port":80}},{"b":{"oportunistic":true,"mqtt_wil_qs":1}}]}`,
		`{"retry":[{"r":{"backoff":[1e3]}}]}`,
		"{ # sspolicy:ignore unknown-kye -- misspelt\n\"s\":[]}",
		`{"s":[{"a":{"endpoint":"x.org:80","port":80,"http_url":"x"}}]}`,
		`{"certs":[{"c":"` + exampleServer + `"},{"k":"` + exampleServerKey + `"}],"s":[{"a":{"server":true,"protocol":"raw","port":1,"tls":true,"server_cert":"k","server_key":"c"}}]}`,
		`{"s":[{"a":{"endpoint":"x.org","http_url":"/","tls":true,"port":443}}]}`,
		`{"s":[{"a":{"endpoint":"x.org","http_method":"get","protocol":"h1","port":443}}]}`,
		`{"s":[{"a":{"endpoint":"x.org","tls_trust_store":"t","port":443}}]}`,
		`{"certs":[{"c":"-----BEGIN CERTIFICATE-----\n` + exampleRoot + `\n-----END CERTIFICATE-----\n"}]}`,
		`{"trust_stores":[{"t":["c"]}]}`,
		`{"s":[{"a":{"endpoint":"${idd}","metadata":[{"id":""}]}}]}`,
		`{"s":[{"a":{"endpoint":" x.org","port":80,"http_method":"GET","http_url":"$id","metadata":[{"id":"x-id: "}]}}]}`,
		`{"auth":[{"name":"w","type":"SigV4","blob":0}],"s":[{"a":{"endpoint":"x.org","port":80,"http_method":"GET","http_url":"","use_auth":"w"}}]}`,
	} {
		look(text, lint.Options{})
	}
	for _, r := range All() {
		kinds, want := seen[r.Name], map[lint.Fixability][2]bool{ // safe, unsafe
			lint.NoFix: {false, false}, lint.SafeFix: {true, false}, lint.UnsafeFix: {false, true}, lint.MixedFix: {true, true},
		}[r.Fixes]
		if got := [2]bool{kinds[true], kinds[false]}; got != want {
			t.Errorf("%s declares fixes of the kind %q, and offers safe %v, unsafe %v", r.Name, r.Fixes, got[0], got[1])
		}
	}
}
