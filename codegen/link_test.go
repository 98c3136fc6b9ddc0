package codegen

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/schema"
)

// installedLWS returns the release line of the installed lws headers, and the compiler
// options with which every policy compiles.
func installedLWS(t *testing.T) (Target, []string) {
	t.Helper()
	need(t, "gcc")
	c := cTest{dir: t.TempDir()}
	path := c.write(t, "version.c", "#include <lws_config.h>\nversion LWS_LIBRARY_VERSION_MAJOR.LWS_LIBRARY_VERSION_MINOR\n")
	text, err := runOutput("gcc", "-E", "-P", path)
	if err != nil {
		t.Fatalf("the headers of libwebsockets are missing; make test installs them (Debian: apt install libwebsockets-dev)\n%s", text)
	}
	m := regexp.MustCompile(`version (\d+) ?\. ?(\d+)`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no version in %s", text)
	}
	var v schema.Version
	if err := v.UnmarshalText([]byte(m[1] + "." + m[2])); err != nil {
		t.Fatalf("installed libwebsockets: %v", err)
	}
	// Debian builds lws without these, but installs the declarations.
	return Target(v), []string{"-DLWS_WITH_SECURE_STREAMS", "-DLWS_ROLE_MQTT", "-DLWS_WITH_SECURE_STREAMS_AUTH_SIGV4", "-DLWS_WITH_SYS_METRICS"}
}

// TestCWithInstalledHeaders checks that tables compile with the installed headers, and
// hold the policy.
func TestCWithInstalledHeaders(t *testing.T) {
	target, options := installedLWS(t)
	t.Logf("libwebsockets %v", target)
	c := &cTest{t.TempDir(), map[Target][]string{}}
	for _, file := range policyFiles(t) {
		p := compileFile(t, file)
		var b strings.Builder
		if err := C(&b, p, COptions{Target: target}); err != nil {
			continue // newer than the target
		}
		c.add(t, target, b.String())
		if diff := cmp.Diff(dumpPolicy(p, target), c.dump(t, target, b.String(), options...)); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
	if len(c.sources[target]) < 2 {
		t.Fatalf("only %d policies are for lws %v", len(c.sources[target]), target)
	}
	c.compileInstalled(t)

	// The sizes of the layouts are those of the headers.
	f := cFile{o: COptions{Target: target}, nodes: map[string][]node{}}
	checks := "#include <libwebsockets.h>\n"
	for typ := range layouts {
		if typ == "lws_ss_auth_t" && !target.has("4.2", "") || typ == "lws_ss_http_respmap_t" && !target.has("4.2", "") || typ == "lws_metric_policy_t" && !target.has("4.2", "") {
			continue
		}
		size, align := f.typeSize(abis[slices.Index(ABIs(), "x86-64")], typ)
		checks += fmt.Sprintf("_Static_assert(sizeof(%s) == %d && _Alignof(%[1]s) == %[3]d, \"%[1]s\");\n", typ, size, align)
	}
	run(t, "gcc", "-fsyntax-only", c.write(t, "sizes.c", checks))
}

// compileInstalled compiles the tables for the installed lws with its headers.
func (c *cTest) compileInstalled(t *testing.T) {
	t.Helper()
	target, options := installedLWS(t)
	if len(c.sources[target]) == 0 {
		t.Fatalf("no tables are for lws %v", target)
	}
	for _, cc := range compilers {
		compileC(t, cc, append(options, "-fsyntax-only", c.all(t, target))...)
	}
}

// TestCTwoPolicies builds programs with two policies, in C and C++, with and without
// separate headers.
func TestCTwoPolicies(t *testing.T) {
	c := newCTest(t)
	first, _ := compileText(`{"retry":[{"r":{"backoff":[1]}}],"s":[{"one":{"protocol":"h1","retry":"r"}},{"two":{"protocol":"ws"}}]}`)
	second, _ := compileText(`{"via-socks5":"proxy:1","s":[{"three":{"protocol":"raw","metadata":[{"m":""}]}}]}`)
	dir := filepath.Join(c.dir, "5.0")
	var sources []string
	for i, p := range []struct {
		o COptions
		f string
	}{{COptions{Prefix: "a_"}, "a"}, {COptions{Prefix: "b_", Entry: "the_other"}, "b"}} {
		policy := first
		if i == 1 {
			policy = second
		}
		var single, header, source strings.Builder
		if err := C(&single, policy, p.o); err != nil {
			t.Fatal(err)
		}
		if err := CWithHeader(&header, &source, p.f+".h", policy, p.o); err != nil {
			t.Fatal(err)
		}
		c.write(t, "5.0/single-"+p.f+".h", single.String())
		c.write(t, "5.0/"+p.f+".h", header.String())
		sources = append(sources, c.write(t, "5.0/"+p.f+".c", source.String()))
	}
	const program = `
#include <stdio.h>
int main(void)
{
	const lws_ss_policy_t *p;
	for (p = &a_static_policy_entry; p; p = p->next)
		puts(p->streamtype);
	for (p = &the_other; p; p = p->next)
		puts(p->streamtype);
	puts(b_socks5_proxy);
	return 0;
}
`
	single := c.write(t, "5.0/single.c", "#include \"single-a.h\"\n#include \"single-b.h\"\n#include \"single-a.h\"\n"+program)
	split := c.write(t, "5.0/split.c", "#include \"a.h\"\n#include \"b.h\"\n#include \"a.h\"\n"+program)
	out := filepath.Join(dir, "program")
	for _, cc := range compilers {
		for _, files := range [][]string{{single}, append([]string{split}, sources...)} {
			compileC(t, cc, append([]string{"-I", dir, "-o", out}, files...)...)
			if got, want := run(t, out), "two\none\nthree\nproxy:1\n"; got != want {
				t.Errorf("%s prints %q, want %q", cc[0], got, want)
			}
		}
	}
	// Tables compiled as C, and a program in C++.
	var objects []string
	for _, s := range sources {
		o := strings.TrimSuffix(s, ".c") + ".o"
		compileC(t, compilers[0], "-I", dir, "-c", "-o", o, s)
		objects = append(objects, o)
	}
	cpp := strings.TrimSuffix(split, ".c") + ".cpp"
	if err := os.Rename(split, cpp); err != nil {
		t.Fatal(err)
	}
	compileC(t, []string{"g++", "-std=c++20"}, append([]string{"-I", dir, "-o", out, cpp}, objects...)...)
}

// TestCGuard checks that a second policy with the same prefix breaks the build.
func TestCGuard(t *testing.T) {
	c := newCTest(t)
	for i, name := range []string{"one", "two"} {
		p, _ := compileText(`{"s":[{"` + name + `":{"protocol":"h1"}}]}`)
		var single, header, source strings.Builder
		o := COptions{SHA256: strings.Repeat(strconv.Itoa(i), 64)}
		if err := errors.Join(C(&single, p, o), CWithHeader(&header, &source, "x.h", p, o)); err != nil {
			t.Fatal(err)
		}
		c.write(t, "5.0/single-"+name+".h", single.String())
		c.write(t, "5.0/header-"+name+".h", header.String())
	}
	for _, form := range []string{"single", "header"} {
		source := c.write(t, "5.0/guard.c", fmt.Sprintf("#include \"%s-one.h\"\n#include \"%[1]s-two.h\"\n", form))
		out, err := runOutput("gcc", "-fsyntax-only", "-I", filepath.Join(c.dir, "5.0"), source)
		if err == nil || !strings.Contains(out, "another policy has the prefix _ss_") {
			t.Errorf("%s: error %v\n%s", form, err, out)
		}
	}
}

// TestCHead links a program with tables of a policy that has changed since it was compiled:
// it gets the new head of the list.
func TestCHead(t *testing.T) {
	c := newCTest(t)
	dir := filepath.Join(c.dir, "5.0")
	write := func(text string) (source string) {
		t.Helper()
		p, diags := compileText(text)
		if len(diags) > 0 {
			t.Fatal(diags)
		}
		var h, s strings.Builder
		if err := CWithHeader(&h, &s, "policy.h", p, COptions{}); err != nil {
			t.Fatal(err)
		}
		c.write(t, "5.0/policy.h", h.String())
		return c.write(t, "5.0/policy.c", s.String())
	}
	write(`{"s":[{"a":{}},{"b":{}}]}`)
	main, program := filepath.Join(dir, "main.o"), filepath.Join(dir, "program")
	compileC(t, compilers[0], "-I", dir, "-c", "-o", main, c.write(t, "5.0/main.c", `#include "policy.h"
#include <stdio.h>
int main(void)
{
	const lws_ss_policy_t *p;
	for (p = &_ss_static_policy_entry; p; p = p->next)
		puts(p->streamtype);
	return 0;
}
`))
	for text, want := range map[string]string{
		`{"s":[{"new":{}},{"a":{}},{"b":{}}]}`: "b\na\nnew\n",
		`{"s":[{"a":{}},{"b":{}},{"new":{}}]}`: "new\nb\na\n",
		`{"s":[{"a":{}}]}`:                     "a\n",
	} {
		compileC(t, compilers[0], "-I", dir, "-o", program, main, write(text))
		if got := run(t, program); got != want {
			t.Errorf("%s: the program prints %q, want %q", text, got, want)
		}
	}
}

// TestCDiff checks that a new streamtype changes few lines of the tables.
func TestCDiff(t *testing.T) {
	lines := func(text string) []string {
		p, diags := compileText(text)
		if len(diags) > 0 {
			t.Fatal(diags)
		}
		var b strings.Builder
		if err := C(&b, p, COptions{}); err != nil {
			t.Fatal(err)
		}
		return strings.Split(b.String(), "\n")
	}
	before := lines(`{"s":[{"a":{}},{"b":{}},{"c":{}},{"d":{}}]}`)
	after := lines(`{"s":[{"new":{"protocol":"raw"}},{"a":{}},{"b":{}},{"c":{}},{"d":{}}]}`)
	missing := 0
	for _, l := range before {
		if !slices.Contains(after, l) && !strings.HasPrefix(l, "#define SS_") { // macros of counts may change
			t.Logf("%q", l)
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("a streamtype inserted first changes %d lines of others", missing)
	}
}

func TestCSymbols(t *testing.T) {
	p, _ := compileText(`{"s":[{"a":{}}]}`)
	for _, o := range []COptions{{Prefix: "1_"}, {Prefix: "a-"}, {Prefix: "é"}, {Entry: "x y"}, {Entry: "int"}, {Entry: "namespace"}, {Entry: "_ss_tables"}, {Prefix: "a_", Entry: "a_data"}} {
		var b strings.Builder
		if err := C(&b, p, o); err == nil || b.Len() > 0 {
			t.Errorf("%+v: %d bytes, error %v", o, b.Len(), err)
		}
	}
	if err := CWithHeader(&strings.Builder{}, &strings.Builder{}, "a\"b.h", p, COptions{}); err == nil {
		t.Error("no error for a header with a quote in its name")
	}
}

// TestCShares checks that equal objects are written once.
func TestCShares(t *testing.T) {
	p, diags := compileText(`{
		"retry":[{"a":{"backoff":[1,2],"conceal":3}},{"b":{"backoff":[1,2],"conceal":3}},{"c":{"backoff":[1,2]}}],
		"certs":[{"x":"AAAA"},{"y":"AAAA"}],
		"trust_stores":[{"name":"t","stack":["x","y"]}],
		"auth":[{"name":"o","type":"sigv4"}],
		"s":[
			{"one":{"retry":"a","tls":true,"tls_trust_store":"t","use_auth":"o","metadata":[{"m":"m:"},{"n":""}],"http_resp_map":[{"404":1000}]}},
			{"two":{"retry":"b","tls":true,"tls_trust_store":"t","use_auth":"o","metadata":[{"m":"m:"},{"n":""}],"http_resp_map":[{"404":1000}]}},
			{"three":{"retry":"c","metadata":[{"m":"m:"}]}},
			{"four":{"retry":"c","metadata":[{"m":"m:"},{"n":""},{"o":""}]}},
			{"five":{"server":true,"options":[{"a":"b"}]}},
			{"six":{"server":true,"options":[{"a":"b"}]}}
		]}`)
	for _, d := range diags {
		t.Fatal(d.Message)
	}
	var b strings.Builder
	if err := C(&b, p, COptions{}); err != nil {
		t.Fatal(err)
	}
	for object, want := range map[string]int{
		"\tuint32_t ":                          1,
		"\tlws_retry_bo_t ":                    2,
		"\tuint8_t ":                           1,
		"\tlws_ss_x509_t ":                     2,
		"\tlws_ss_trust_store_t ":              1,
		"\tlws_ss_metadata_t ":                 2,
		".value_is_http_token":                 3,
		"\tlws_ss_http_respmap_t ":             1,
		"\tlws_ss_auth_t ":                     1,
		"\tstruct lws_protocol_vhost_options ": 1,
	} {
		if got := strings.Count(b.String(), object); got != want {
			t.Errorf("%q occurs %d times, want %d", object, got, want)
		}
	}
	c := newCTest(t)
	if diff := cmp.Diff(dumpPolicy(p, DefaultTarget), c.dump(t, DefaultTarget, b.String())); diff != "" {
		t.Error(diff)
	}
}

// TestCPositionIndependent checks that only objects with addresses are in memory that a
// loader writes.
func TestCPositionIndependent(t *testing.T) {
	c := newCTest(t)
	dir := filepath.Join(c.dir, "5.0")
	for _, file := range policyFiles(t) {
		var header, source strings.Builder
		if err := CWithHeader(&header, &source, "policy.h", compileFile(t, file), COptions{}); err != nil {
			t.Fatal(err)
		}
		c.write(t, "5.0/policy.h", header.String())
		object := filepath.Join(dir, "policy.o")
		compileC(t, compilers[0], "-fPIC", "-I", dir, "-c", "-o", object, c.write(t, "5.0/policy.c", source.String()))
		f, err := elf.Open(object)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, s := range symbols {
			where := map[string]string{"_ss_data": ".rodata", "_ss_tables": ".data.rel.ro.local", "_ss_static_policy_entry": ".data.rel.ro.local"}[s.Name]
			if where == "" {
				continue
			}
			found++
			if got := f.Sections[s.Section].Name; got != where {
				t.Errorf("%s: %s is in %s, want %s", file, s.Name, got, where)
			}
		}
		if found == 0 {
			t.Errorf("%s has no tables", file)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
