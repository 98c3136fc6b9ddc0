package thirdparty

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/secure-streams/sspolicy/overlay"
	"github.com/secure-streams/sspolicy/schema"
)

// TestPatch applies the patches of overlays with json-patch, and compares the result
// with the document.
func TestPatch(t *testing.T) {
	for _, test := range []struct{ name, base, fragment string }{
		{"settings", `{"s":[{"a":{"port":1,"tls":true,"x~/y":1}},{"b":{}}]}`, `{"s":[{"a":{"port":2,"tls":null,"endpoint":"<&>"}}]}`},
		{"lists", `{"s":[{"a":{"metadata":[{"a":""},{"b":""},{"c":""}]}}]}`, `{"s":[{"a":{"metadata":[{"a":null},{"c":"c:"},{"d":""}],"http_resp_map":[{"404":1404}]}}]}`},
		{"definitions", `{"retry":[{"r":{"conceal":1}},{"q":{}}],"s":[{"a":{}}]}`,
			`{"retry":[{"r2":{}},{"q":null}],"certs":[{"c":"AA=="}],"trust_stores":[{"name":"t","stack":["c"]}],"s":[{"a":null},{"n":{"port":1}}]}`},
		{"the policy", `{"release":"1","via-socks5":"h:1","s":[]}`, `{"release":"2","via-socks5":null,"product":"p"}`},
		{"a URL", `{"s":[{"a":{"endpoint":"e","port":443,"http_url":"v1","tls":true}}]}`, `{"s":[{"a":{"endpoint":"http://127.0.0.1:8080/x"}}]}`},
		{"a protocol", `{"s":[{"a":{"http_url":"v1","timeout_ms":1}}]}`, `{"s":[{"a":{"protocol":"mqtt"}}]}`},
		{"nothing", `{"s":[{"a":{"port":1}}]}`, `{"s":[{"a":{"port":1}}]}`},
	} {
		t.Run(test.name, func(t *testing.T) { checkPatch(t, test.base, test.fragment, overlay.Options{AllowNew: true}) })
	}
	files, err := filepath.Glob("../../overlay/testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	base, err := os.ReadFile("../../overlay/testdata/base.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, fragment, _ := strings.Cut(string(text), "-- fragment1.json --\n")
		fragment, _, _ = strings.Cut(fragment, "\n-- ")
		t.Run(filepath.Base(file), func(t *testing.T) {
			checkPatch(t, string(base), fragment, overlay.Options{})
			checkPatch(t, string(base), fragment, overlay.Options{LWS: schema.Latest()})
		})
	}
}

func checkPatch(t *testing.T, base, fragment string, o overlay.Options) {
	t.Helper()
	d := schema.Parse("base", []byte(base))
	r := overlay.Apply(d, []*schema.Document{schema.Parse("fragment", []byte(fragment))}, o)
	if r.Document == nil {
		return
	}
	text, err := json.Marshal(overlay.Patch(d, r.Document))
	if err != nil {
		t.Fatal(err)
	}
	p, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Apply([]byte(base))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var want, have any
	if err := json.Unmarshal(overlay.Plain(&r.Document.Root), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &have); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(want, have) {
		t.Errorf("%s gives\n%s\nwant\n%s", text, got, overlay.Plain(&r.Document.Root))
	}
	if (len(p) == 0) != (len(r.Changes) == 0) {
		t.Errorf("%d operations for %d changes", len(p), len(r.Changes))
	}
}
