package codegen

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

var strict = []string{"-Wall", "-Wextra", "-Werror", "-Wpedantic"}

// compilers are the compilers that must accept generated C. C++ has designated
// initialisers since C++20.
var compilers = [][]string{
	{"gcc", "-std=c99"},
	{"clang", "-std=c99"},
	{"g++", "-std=c++20", "-x", "c++"},
	{"clang++", "-std=c++20", "-x", "c++"},
}

// windowsCompilers compile for Windows.
var windowsCompilers = [][]string{
	{"clang", "--target=x86_64-pc-windows-msvc", "-ffreestanding", "-std=c99"},
	{"clang++", "--target=x86_64-pc-windows-msvc", "-ffreestanding", "-std=c++20", "-x", "c++"},
}

// A cTest is a folder with stand-in headers of each target, and sources with tables.
type cTest struct {
	dir     string
	sources map[Target][]string
}

func newCTest(t *testing.T) *cTest {
	t.Helper()
	c := &cTest{t.TempDir(), map[Target][]string{}}
	for _, target := range targets() {
		c.write(t, target.String()+"/libwebsockets.h", standIn(target))
	}
	return c
}

func (c *cTest) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var prefix, macroPrefix = regexp.MustCompile(`\b_ss_`), regexp.MustCompile(`\bSS_`)

// add adds tables to compile. Each gets its own prefix, so that all tables of a target
// compile in one go.
func (c *cTest) add(t *testing.T, target Target, tables string) {
	t.Helper()
	n := len(c.sources[target])
	name := fmt.Sprintf("%v/t%d.h", target, n)
	tables = macroPrefix.ReplaceAllString(tables, fmt.Sprintf("T%d_", n))
	c.sources[target] = append(c.sources[target], c.write(t, name, prefix.ReplaceAllString(tables, fmt.Sprintf("t%d_", n))+
		fmt.Sprintf("\nconst lws_ss_policy_t *entry%d(void);\nconst lws_ss_policy_t *entry%[1]d(void)\n{\n\treturn &t%[1]d_static_policy_entry;\n}\n", n)))
}

// all returns a source file with all tables of a target.
func (c *cTest) all(t *testing.T, target Target) string {
	t.Helper()
	var b strings.Builder
	for _, s := range c.sources[target] {
		fmt.Fprintf(&b, "#include \"%s\"\n", filepath.Base(s))
	}
	return c.write(t, target.String()+"/all.c", b.String())
}

// need fails the test if a program is missing.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is missing; make test installs it (Debian: apt install gcc g++ clang libc6-dev gcc-arm-none-eabi gcc-i686-linux-gnu)", program)
	}
}

// compileC compiles sources with all warnings as errors.
func compileC(t *testing.T, compiler []string, args ...string) {
	t.Helper()
	need(t, compiler[0])
	run(t, compiler[0], slices.Concat(compiler[1:], strict, args)...)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := runOutput(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%.4000s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func runOutput(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

// compile compiles all tables, those of a target in one go.
func (c *cTest) compile(t *testing.T) {
	t.Helper()
	for _, cc := range slices.Concat(compilers, windowsCompilers) {
		for target := range c.sources {
			compileC(t, cc, "-fsyntax-only", "-I", filepath.Join(c.dir, target.String()), c.all(t, target))
		}
	}
}

// standIn returns a libwebsockets.h of the target.
func standIn(target Target) string { return declarations(target) }

// TestCCompiles checks that tables compile without warnings for every release that can
// hold the policy.
func TestCCompiles(t *testing.T) {
	c := newCTest(t)
	for _, file := range policyFiles(t) {
		p := compileFile(t, file)
		for _, target := range targets() {
			var b strings.Builder
			if err := C(&b, p, COptions{Target: target}); err == nil {
				c.add(t, target, b.String())
			} else if target == DefaultTarget || strings.Contains(file, "every-release") {
				t.Errorf("%s for lws %v: %v", file, target, err)
			}
		}
	}
	fixtures, err := filepath.Glob("../fixtures/*.json")
	more, err2 := filepath.Glob("../fixtures/codegen/*.json")
	if err != nil || err2 != nil || len(fixtures) == 0 || len(more) == 0 {
		t.Fatal("the fixtures are missing", err, err2)
	}
	n := 0
	for _, file := range append(fixtures, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, diags := compileText(string(text))
		if schema.HasErrors(diags) {
			continue
		}
		for _, target := range targets() {
			var b strings.Builder
			if err := C(&b, p, COptions{Target: target}); err == nil {
				c.add(t, target, b.String())
				n++
			}
		}
	}
	if n < 10 {
		t.Errorf("fixtures give %d tables, want at least 10", n)
	}
	// A string longer than the limit of literals.
	p := &policy.Policy{StreamTypes: []*policy.StreamType{{Name: "long", Endpoint: strings.Repeat("a\\'\"é\n??/", 600)}}}
	var b strings.Builder
	if err := C(&b, p, COptions{}); err != nil {
		t.Fatal(err)
	}
	c.add(t, DefaultTarget, b.String())
	c.compile(t)
}

// TestCHolds checks that tables hold the policy. It uses testdata/dump.c, which is
// independent of the writer.
func TestCHolds(t *testing.T) {
	c := newCTest(t)
	for _, file := range policyFiles(t) {
		p := compileFile(t, file)
		for _, target := range targets() {
			t.Run(filepath.Base(file)+" for lws "+target.String(), func(t *testing.T) {
				var b strings.Builder
				if err := C(&b, p, COptions{Target: target}); err != nil {
					if target == DefaultTarget {
						t.Fatal(err)
					}
					t.Log(err) // an older release cannot hold it
					return
				}
				if diff := cmp.Diff(dumpPolicy(p, target), c.dump(t, target, b.String())); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// dump returns the lines that testdata/dump.c prints for tables, sorted. args are for
// the compiler.
func (c *cTest) dump(t *testing.T, target Target, tables string, args ...string) []string {
	t.Helper()
	source, err := filepath.Abs("testdata/dump.c")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.dir, target.String())
	c.write(t, target.String()+"/policy.h", tables)
	program := filepath.Join(dir, "dump")
	compileC(t, compilers[0], append(args, "-I", dir, "-o", program, source)...)
	lines := strings.Split(strings.TrimSpace(run(t, program)), "\n")
	sort.Strings(lines)
	return lines
}

// dumpPolicy returns the lines that testdata/dump.c prints for a policy.
func dumpPolicy(p *policy.Policy, target Target) []string {
	var lines []string
	line := func(path string, value any) { lines = append(lines, fmt.Sprintf("%s %v", path, value)) }
	text := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			if c > ' ' && c < 0x7f && c != '\\' {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "\\%02x", c)
			}
		}
		return `"` + b.String() + `"`
	}
	var fields func(path string, v reflect.Value)
	fields = func(path string, v reflect.Value) {
		v = reflect.Indirect(v)
		for i := range v.NumField() {
			key, f := v.Type().Field(i).Tag.Get("policy"), v.Field(i)
			at := path + "." + key
			if key == "" || f.IsZero() && key != "protocol" {
				if f.Kind() == reflect.Pointer && !f.IsNil() { // HTTP, MQTT
					fields(path, f)
				}
				continue
			}
			switch x := f.Interface().(type) {
			case string:
				line(at, text(strings.SplitN(x, "\x00", 2)[0])) // as C sees it
			case bool:
				line(at, 1)
			case time.Duration:
				line(at, x.Milliseconds())
			case []time.Duration:
				for i, d := range x {
					line(fmt.Sprintf("%s[%d]", at, i), d.Milliseconds())
				}
			case []policy.Metadata:
				var order []string
				for i, m := range x {
					order = append([]string{fmt.Sprint(i)}, order...)
					line(fmt.Sprintf("%s[%d]", at, i), text(m.Name)+" "+text(m.Header))
					if h := lookupHeader(m.Header); target.has("4.2", "") && h != nil {
						line(fmt.Sprintf("%s[%d].token", at, i), h.name)
					}
				}
				line(at+".order", strings.Join(order, " "))
			case []policy.Option:
				for i, o := range x {
					line(fmt.Sprintf("%s[%d]", at, i), text(o.Name)+" "+text(o.Value))
				}
			case []policy.StatusState:
				for i, s := range x {
					line(fmt.Sprintf("%s[%d]", at, i), fmt.Sprint(s.Status, " ", uint16(s.State)))
				}
			case *policy.Cert:
				line(at, text(x.Name)+" "+text(x.DER)+" keep")
			case []*policy.Cert:
				for i, c := range x {
					line(fmt.Sprintf("%s[%d]", at, i), text(c.Name)+" "+text(c.DER))
				}
			case *policy.Retry, *policy.TrustStore, *policy.Auth:
				line(at, "set")
				fields(at, f)
			default:
				line(at, x)
			}
		}
	}
	for i, m := range p.Metrics {
		fields(fmt.Sprintf("metrics[%d]", len(p.Metrics)-1-i), reflect.ValueOf(m)) // newest first
	}
	if p.SOCKS5Proxy != "" {
		line("via-socks5", text(p.SOCKS5Proxy))
	}
	for i, st := range p.StreamTypes {
		path := fmt.Sprintf("s[%d]", i)
		line(path, text(st.Name))
		if !st.Server && st.Endpoint == "" {
			line(path+".endpoint", `""`)
		}
		if !st.Server && st.HTTP != nil && st.HTTP.URL == "" {
			line(path+".http_url", `""`)
		}
		if h := st.HTTP; h != nil && h.Multipart {
			line(path+".multipart", 1)
			if h.MultipartName == "" {
				line(path+".http_multipart_name", `""`)
			}
		}
		fields(path, reflect.ValueOf(st))
	}
	sort.Strings(lines)
	return lines
}

// TestCErrors checks policies that a target, or C tables at all, cannot hold.
func TestCErrors(t *testing.T) {
	for _, test := range []struct{ text, target, want string }{
		{`{}`, "5.0", "the policy has no streamtypes"},
		{`{"s":[{"a":{"protocol":"h3"}}]}`, "4.5", `streamtype "a": protocol h3 needs lws 5.0 or later, not 4.5`},
		{`{"s":[{"a":{"http_cookies":true}}]}`, "4.2", "http_cookies needs lws 4.3 or later, not 4.2"},
		{`{"s":[{"a":{"protocol":"mqtt","mqtt_retain":true}}]}`, "4.2", "needs lws 4.3.2 or later"},
		{`{"s":[{"a":{"http_resp_map":[{"404":1000}]}}]}`, "4.1", "http_resp_map"},
		{`{"metrics":[{"name":"m"}],"s":[{"a":{}}]}`, "4.1", "metric"},
		{`{"auth":[{"name":"x"}],"s":[{"a":{"use_auth":"x"}}]}`, "4.1", "use_auth"},
		{`{"trust_stores":[{"name":"t","stack":[]}],"s":[{"a":{"tls_trust_store":"t"}}]}`, "5.0", `trust store "t" has no certificate`},
		{`{"certs":[{"c":"AAAA"}],"trust_stores":[{"name":"t","stack":["c","c","c","c","c","c","c"]}],"s":[{"a":{"tls_trust_store":"t"}}]}`, "5.0", "7 certificates in a trust store, but lws has room for 6"},
		{`{"s":[{"a":{"metadata":[{"m":"` + strings.Repeat("x", 256) + `"}]}}]}`, "5.0", "256 bytes in a metadata item's header"},
		{`{"s":[{"a":{"metadata":[` + strings.Repeat(`{"m":""},`, 255) + `{"m":""}]}}]}`, "5.0", "256 metadata items"},
	} {
		var v schema.Version
		if err := v.UnmarshalText([]byte(test.target)); err != nil {
			t.Fatal(err)
		}
		p, _ := compileText(test.text)
		var b strings.Builder
		err := C(&b, p, COptions{Target: Target(v)})
		if err == nil || !strings.Contains(err.Error(), test.want) || b.Len() > 0 {
			t.Errorf("%.60s for lws %s: %d bytes, error %v; want %q", test.text, test.target, b.Len(), err, test.want)
		}
	}
	p := &policy.Policy{StreamTypes: []*policy.StreamType{{Name: "a", Timeout: 1500 * time.Microsecond, Protocol: 200}}}
	if err := C(&strings.Builder{}, p, COptions{}); err == nil || !strings.Contains(err.Error(), "timeout_ms") || !strings.Contains(err.Error(), "protocol(200)") {
		t.Errorf("invalid table: error %v", err)
	}
}

// TestCChecks checks the #error lines for the version and build options of lws.
func TestCChecks(t *testing.T) {
	c := newCTest(t)
	var b strings.Builder
	if err := C(&b, compileFile(t, "testdata/every-key.json"), COptions{Target: Target{Major: 4, Minor: 3}}); err == nil {
		t.Fatal("no error, but 4.3 does not have options")
	}
	p, _ := compileText(`{"s":[{"a":{"protocol":"mqtt","mqtt_retain":true,"tls":true}}]}`)
	if err := C(&b, p, COptions{Target: Target{Major: 4, Minor: 3}}); err != nil {
		t.Fatal(err)
	}
	path := c.write(t, "policy.c", b.String())
	for _, test := range []struct{ flags, want string }{
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003001 -DLWS_ROLE_MQTT -DLWS_WITH_TLS", "compiled for libwebsockets 4.3, from 4.3.2 on, which mqtt_retain of streamtype a needs: compile it with --lws"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4004000 -DLWS_ROLE_MQTT -DLWS_WITH_TLS", "compiled for libwebsockets 4.3"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003002 -DLWS_WITH_TLS", "protocol mqtt of streamtype a needs libwebsockets built with -DLWS_ROLE_MQTT=1: add it to the cmake line"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003002 -DLWS_ROLE_MQTT", "tls of streamtype a needs libwebsockets built with -DLWS_WITH_SSL=1"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003010 -DLWS_ROLE_MQTT -DLWS_WITH_TLS -ULWS_WITH_SECURE_STREAMS", "libwebsockets was built without Secure Streams: add -DLWS_WITH_SECURE_STREAMS=1 to its cmake line"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003010 -DLWS_ROLE_MQTT -DLWS_WITH_TLS", ""},
	} {
		c.write(t, "checks/libwebsockets.h", "")
		args := slices.Concat([]string{"-DLWS_WITH_SECURE_STREAMS"}, strings.Fields(test.flags), []string{"-E"}, []string{"-I", filepath.Join(c.dir, "checks"), "-o", os.DevNull, path})
		out, err := exec.Command("gcc", args...).CombinedOutput()
		if test.want == "" && err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("%s: %v %s; want %q", test.flags, err, out, test.want)
		}
	}
}

func FuzzCString(f *testing.F) {
	f.Add("a\x01" + "1??/\"\\é\xff\u202e")
	f.Add(strings.Repeat("?", 200))
	f.Fuzz(func(t *testing.T, s string) {
		literal := cString(s)
		if strings.Contains(literal, "??") {
			t.Errorf("%q: trigraph in %s", s, literal)
		}
		var got []byte
		for l := range strings.SplitSeq(literal, "\n") {
			if len(l) > 200 {
				t.Errorf("%q: a line of %d", s, len(l))
			}
			l = strings.TrimSuffix(strings.TrimPrefix(l, `"`), `"`)
			for l != "" {
				n := 1
				switch {
				case l[0] == '"' || l[0] < ' ' || l[0] == 0x7f:
					t.Fatalf("%q: raw %q in %s", s, l[0], literal)
				case l[0] != '\\':
					got = append(got, l[0])
				case l[1] >= '0' && l[1] <= '3':
					n = 4
					got = append(got, (l[1]-'0')<<6|(l[2]-'0')<<3|(l[3]-'0'))
				default:
					n = 2
					got = append(got, map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '"': '"', '\\': '\\', '?': '?'}[l[1]])
				}
				l = l[n:]
			}
		}
		if string(got) != s {
			t.Errorf("%q is read as %q from %s", s, got, literal)
		}
	})
}
