package codegen

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCNames checks the macros of names, and that a misspelled name does not compile.
func TestCNames(t *testing.T) {
	p, diags := compileText(`{
		"certs":[{"x":"AAAA"}],
		"trust_stores":[{"name":"le","stack":["x"]}],
		"s":[
			{"get weather":{"metadata":[{"city":""},{"city":""}],"tls":true,"tls_trust_store":"le"}},
			{"a-b":{"metadata":[{"c":""}]}},
			{"a_b":{}},
			{"a":{"metadata":[{"b-c":""},{"x?":""}]}},
			{"été":{}},
			{"` + strings.Repeat("long", 11) + `":{}}
		]}`)
	for _, d := range diags {
		t.Fatal(d.Message)
	}
	var b strings.Builder
	if err := C(&b, p, COptions{}); err != nil {
		t.Fatal(err)
	}
	_, names, _ := strings.Cut(b.String(), "/* Names. */\n")
	names, _, _ = strings.Cut(names, "\n#elif")
	if diff := cmp.Diff(`#define SS_STREAM_get_weather "get weather"
#define SS_METADATA_get_weather_city "city"
#define SS_STORE_le "le"
/* two names could be SS_STREAM_a_b */
/* two names could be SS_METADATA_a_b_c */
#define SS_STREAM_a "a"
#define SS_METADATA_a_x "x?"

/* Counts, and the largest sizes in bytes; of names with their NUL. */
#define SS_STREAMS 6
#define SS_STORES 1
#define SS_MAX_METADATA 2
#define SS_MAX_STREAM_NAME 45
#define SS_MAX_DER 3
`, names); diff != "" {
		t.Error(diff)
	}

	c := newCTest(t)
	dir := filepath.Join(c.dir, "5.0")
	c.write(t, "5.0/policy.h", b.String())
	for name, want := range map[string]string{"SS_STREAM_get_weather": "", "SS_STREAM_get_wether": "SS_STREAM_get_wether", "SS_STREAM_a_b": "SS_STREAM_a_b"} {
		out, err := runOutput("gcc", "-fsyntax-only", "-I", dir, c.write(t, "5.0/main.c", "#include \"policy.h\"\nconst void *head = &_ss_static_policy_entry;\nconst char *name = "+name+";\n"))
		if (err != nil) != (want != "") || !strings.Contains(out, want) {
			t.Errorf("%s: error %v, want %q\n%s", name, err, want, out)
		}
	}
}
