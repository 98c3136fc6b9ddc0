package codegen

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// variantsOf returns a policy and variants of it, whose names need care in C and Go.
func variantsOf() (*policy.Policy, []Variant) {
	of := func(endpoint string) *policy.Policy {
		retry := &policy.Retry{Name: "default", Conceal: 1}
		return &policy.Policy{StreamTypes: []*policy.StreamType{
			{Name: "variants", Endpoint: endpoint, Port: 1, Retry: retry, Metadata: []policy.Metadata{{Name: "m"}}, HTTP: &policy.HTTP{Method: "GET"}},
		}}
	}
	return of("production.test"), []Variant{
		{Name: "test", Policy: of("one.test")}, {Name: "a-b", Policy: of("two.test")}, {Name: "a_b", Policy: of("three.test")}, {Name: "static", Policy: of("four.test")}, {Name: "9", Policy: of("five.test")},
		{Name: "TEST", Policy: of("six.test")}, {Name: "é", Policy: of("seven.test")}, {Name: "test_", Policy: of("eight.test"), SHA256: "88"},
	}
}

// TestCVariants compiles the tables of variants with their list, and a program that prints
// the list.
func TestCVariants(t *testing.T) {
	_, variants := variantsOf()
	c := newCTest(t)
	folder := DefaultTarget.String() + "/"
	dir := filepath.Join(c.dir, folder)
	write := func(name, text string) string { return c.write(t, folder+name, text) }
	var header strings.Builder
	sources := make([]strings.Builder, len(variants))
	var writers []io.Writer
	for i := range sources {
		writers = append(writers, &sources[i])
	}
	if err := CVariants(&header, writers, "v.h", variants, COptions{}); err != nil {
		t.Fatal(err)
	}
	write("v.h", header.String())
	files := []string{write("main.c", `#include "v.h"
#include <stdio.h>
int main(void) {
	int n;
	for (n = 0; _ss_variants[n].name; n++)
		printf("%s %s\n", _ss_variants[n].name, _ss_variants[n].policy->endpoint);
	puts(SS_TEST_STREAM_variants SS_9_METADATA_variants_m _ss_test_3_policy_sha256);
	puts(_ss_policy_policy_identity.text);
	return 0;
}
`)}
	for i := range sources {
		files = append(files, write("v"+string(rune('0'+i))+".c", sources[i].String()))
	}
	const want = "test one.test\na-b two.test\na_b three.test\nstatic four.test\n9 five.test\nTEST six.test\né seven.test\ntest_ eight.test\n" +
		"variantsm88\nsspolicy: product=\"\" release=\"\" schema-version=0 sha256= lws=5.0\n"
	for _, cc := range compilers {
		program := filepath.Join(dir, "program")
		compileC(t, cc, append([]string{"-I", dir, "-o", program}, files...)...)
		if d := cmp.Diff(want, run(t, program)); d != "" {
			t.Errorf("%v: %s", cc, d)
		}
	}
	if err := CVariants(io.Discard, nil, "a\"b.h", variants, COptions{}); err == nil {
		t.Error("no error for the name of the header")
	}
}

// TestGoVariantsFit checks that a variant has what the types of the package need.
func TestGoVariantsFit(t *testing.T) {
	for _, test := range []struct {
		change func(*policy.Policy)
		want   string
	}{
		{func(p *policy.Policy) { p.StreamTypes = nil }, `variant test has no streamtype "variants", for which the package has a type`},
		{func(p *policy.Policy) { p.StreamTypes[0].Metadata = nil }, `variant test has no metadata "m" in streamtype "variants", for which the package has a field`},
		{func(p *policy.Policy) { p.StreamTypes[0].Protocol = policy.ProtocolMQTT }, `variant test needs the transport mqtt, which the package does not import`},
		{func(p *policy.Policy) { p.StreamTypes[0].Port = 2 }, ""},
	} {
		p, variants := variantsOf()
		test.change(variants[0].Policy)
		var got string
		if err := GoVariants(io.Discard, p, variants, GoOptions{}); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
