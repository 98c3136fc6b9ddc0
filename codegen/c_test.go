package codegen

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/schema"
)

var strict = []string{"-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"}

// A cTest is a folder with a stand-in for the headers of each target, and
// sources that include tables.
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

// add adds tables to be compiled.
func (c *cTest) add(t *testing.T, target Target, tables string) {
	t.Helper()
	name := fmt.Sprintf("%v/t%d.c", target, len(c.sources[target]))
	c.sources[target] = append(c.sources[target], c.write(t, name, tables+
		"\nconst lws_ss_policy_t *entry(void);\nconst lws_ss_policy_t *entry(void)\n{\n\treturn &_ss_static_policy_entry;\n}\n"))
}

// compilers returns the C compilers to test with: gcc, and clang if there.
func compilers(t *testing.T) []string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Fatal("gcc is missing: this test compiles the C that is generated (Debian: apt install gcc libc6-dev)")
	}
	if _, err := exec.LookPath("clang"); err != nil {
		return []string{"gcc"}
	}
	return []string{"gcc", "clang"}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%.4000s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// compile compiles all tables, those of a target in one go.
func (c *cTest) compile(t *testing.T) {
	t.Helper()
	for _, cc := range compilers(t) {
		for target, sources := range c.sources {
			args := append(slices.Clone(strict), "-fsyntax-only", "-I", filepath.Join(c.dir, target.String()))
			run(t, cc, append(args, sources...)...)
		}
	}
}

// standIn returns what a libwebsockets.h of the target declares, as far as
// tables need it, built with all options on.
func standIn(target Target) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#include <stddef.h>\n#include <stdint.h>\n#define LWS_LIBRARY_VERSION_NUMBER (%d) + \\\n\t(%d) + 999\n",
		target.Major*1_000_000, target.Minor*1_000)
	for _, o := range buildOptions {
		fmt.Fprintf(&b, "#define %s\n", o.macro)
	}
	b.WriteString("#define LWS_WITH_HTTP_UNCOMMON_HEADERS\nenum {\n")
	for bit, flag := range flagBits() {
		if flag != nil && target.has(flag.Since, "") {
			fmt.Fprintf(&b, "\t%s = (1 << %d),\n", flag.Flag, bit)
		}
	}
	b.WriteString("};\nenum {\n")
	for _, p := range cProtocols {
		if target.has(p.since, "") {
			fmt.Fprintf(&b, "\t%s,\n", p.symbol)
		}
	}
	b.WriteString("};\n")
	if target.has("4.2", "") {
		b.WriteString("enum {\n")
		for _, h := range knownHeaders {
			fmt.Fprintf(&b, "\t%s,\n", h.symbol)
		}
		b.WriteString("};\n#define TOKEN_NAME(n) token_names[n]\n#define token_names ((const char *const[]){ ")
		for _, h := range knownHeaders {
			fmt.Fprintf(&b, "%q, ", h.name)
		}
		b.WriteString("})\n")
	}
	for _, typ := range []string{
		"lws_retry_bo_t", "lws_metric_policy_t", "lws_ss_x509_t", "lws_ss_trust_store_t", "lws_ss_metadata_t",
		"lws_ss_http_respmap_t", "lws_ss_auth_t", "struct lws_protocol_vhost_options", "lws_ss_policy_t",
	} {
		tag, isTag := strings.CutPrefix(typ, "struct ")
		tag = strings.TrimSuffix(tag, "_t")
		fmt.Fprintf(&b, "struct %s {\n", tag)
		declare(&b, "\t", target, layouts[typ])
		b.WriteString("};\n")
		if !isTag {
			fmt.Fprintf(&b, "typedef struct %s %s;\n", tag, typ)
		}
	}
	return b.String()
}

func declare(b *strings.Builder, indent string, target Target, list []member) {
	for _, m := range list {
		if !target.has(m.since, m.until) {
			continue
		}
		switch {
		case m.members != nil:
			kind := "struct"
			if m.union {
				kind = "union"
			}
			fmt.Fprintf(b, "%s%s {\n", indent, kind)
			declare(b, indent+"\t", target, m.members)
			fmt.Fprintf(b, "%s} %s;\n", indent, m.name)
		case m.count > 0:
			fmt.Fprintf(b, "%s%s%s[%d];\n", indent, m.typ, m.name, m.count)
		case m.bits > 0:
			// C99 has no bit fields of this type. Like lws, most compilers do.
			fmt.Fprintf(b, "%s__extension__ %s%s:%d;\n", indent, m.typ, m.name, m.bits)
		default:
			fmt.Fprintf(b, "%s%s%s;\n", indent, m.typ, m.name)
		}
	}
}

func flagBits() (bits [32]*schema.Key) {
	for _, k := range schema.Keys(schema.Streams) {
		if k.Flag != "" {
			bits[k.Bit] = k
		}
	}
	return bits
}

// What C writes compiles for every release that can hold the policy, without a
// warning.
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
	// Longer than a string literal may be.
	p := &runtime.Policy{StreamTypes: []*runtime.StreamType{{Name: "long", Endpoint: strings.Repeat("a\\'\"é\n??/", 600)}}}
	var b strings.Builder
	if err := C(&b, p, COptions{}); err != nil {
		t.Fatal(err)
	}
	c.add(t, DefaultTarget, b.String())
	c.compile(t)
}

// The tables that C writes hold what the policy holds: testdata/dump.c, which
// knows nothing of the emitter, prints both.
func TestCHolds(t *testing.T) {
	c := newCTest(t)
	dump, err := filepath.Abs("testdata/dump.c")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range policyFiles(t) {
		p := compileFile(t, file)
		for _, target := range targets() {
			t.Run(filepath.Base(file)+" for lws "+target.String(), func(t *testing.T) {
				var b strings.Builder
				if err := C(&b, p, COptions{Target: target}); err != nil {
					t.Skip(err)
				}
				dir := filepath.Join(c.dir, target.String())
				c.write(t, target.String()+"/policy.h", b.String())
				program := filepath.Join(dir, "dump")
				run(t, compilers(t)[0], append(slices.Clone(strict), "-I", dir, "-o", program, dump)...)
				got := strings.Split(strings.TrimSpace(run(t, program)), "\n")
				sort.Strings(got)
				if diff := cmp.Diff(dumpPolicy(p, target), got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// dumpPolicy returns the lines that testdata/dump.c prints for a policy.
func dumpPolicy(p *runtime.Policy, target Target) []string {
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
			case []runtime.Metadata:
				var order []string
				for i, m := range x {
					order = append([]string{fmt.Sprint(i)}, order...)
					line(fmt.Sprintf("%s[%d]", at, i), text(m.Name)+" "+text(m.Header))
					if h := lookupHeader(m.Header); target.has("4.2", "") && h != nil {
						line(fmt.Sprintf("%s[%d].token", at, i), h.name)
					}
				}
				line(at+".order", strings.Join(order, " "))
			case []runtime.Option:
				for i, o := range x {
					line(fmt.Sprintf("%s[%d]", at, i), text(o.Name)+" "+text(o.Value))
				}
			case []runtime.StatusState:
				for i, s := range x {
					line(fmt.Sprintf("%s[%d]", at, i), fmt.Sprint(s.Status, " ", uint16(s.State)))
				}
			case *runtime.Cert:
				line(at, text(x.Name)+" "+text(x.DER)+" keep")
			case []*runtime.Cert:
				for i, c := range x {
					line(fmt.Sprintf("%s[%d]", at, i), text(c.Name)+" "+text(c.DER))
				}
			case *runtime.Retry, *runtime.TrustStore, *runtime.Auth:
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
		if h := st.HTTP; h != nil {
			multipart := h.MultipartName+h.MultipartFilename+h.MIMEContentType != ""
			if multipart {
				line(path+".multipart", 1)
			}
			if !st.Server && h.URL == "" && (multipart || h.Cookies || h.WWWFormURLEncoded || st.Protocol == runtime.ProtocolWS) {
				line(path+".http_url", `""`)
			}
		}
		fields(path, reflect.ValueOf(st))
	}
	sort.Strings(lines)
	return lines
}

// What a release has no place for is an error that says so, and so is a policy
// that no C table can be made of.
func TestCRefuses(t *testing.T) {
	for _, test := range []struct{ text, target, want string }{
		{`{}`, "5.0", "the policy has no streamtypes"},
		{`{"s":[{"a":{"protocol":"h3"}}]}`, "4.5", `streamtype "a": protocol h3: lws 4.5 has no place for it, only 5.0 and later do`},
		{`{"s":[{"a":{"http_cookies":true}}]}`, "4.2", "http_cookies: lws 4.2 has no place for it, only 4.3 and later do"},
		{`{"s":[{"a":{"protocol":"mqtt","mqtt_retain":true}}]}`, "4.2", "only 4.3.2 and later do"},
		{`{"s":[{"a":{"http_resp_map":[{"404":1000}]}}]}`, "4.1", "http_resp_map"},
		{`{"metrics":[{"name":"m"}],"s":[{"a":{}}]}`, "4.1", "metric"},
		{`{"auth":[{"name":"x"}],"s":[{"a":{"use_auth":"x"}}]}`, "4.1", "use_auth"},
		{`{"trust_stores":[{"name":"t","stack":[]}],"s":[{"a":{"tls_trust_store":"t"}}]}`, "5.0", `trust store "t" has no certificate`},
		{`{"certs":[{"c":"AAAA"}],"trust_stores":[{"name":"t","stack":["c","c","c","c","c","c","c"]}],"s":[{"a":{"tls_trust_store":"t"}}]}`, "5.0", "7 certificates in a trust store, and lws has room for 6"},
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
	p := &runtime.Policy{StreamTypes: []*runtime.StreamType{{Name: "a", Timeout: 1500 * time.Microsecond, Protocol: 200}}}
	if err := C(&strings.Builder{}, p, COptions{}); err == nil || !strings.Contains(err.Error(), "timeout_ms") || !strings.Contains(err.Error(), "protocol(200)") {
		t.Errorf("a table made by hand gives the error %v", err)
	}
}

// A file says what of lws it was made for, and what that must be built with.
func TestCChecks(t *testing.T) {
	c := newCTest(t)
	var b strings.Builder
	if err := C(&b, compileFile(t, "testdata/every-key.json"), COptions{Target: Target{Major: 4, Minor: 3}}); err == nil {
		t.Fatal("4.3 has no options")
	}
	p, _ := compileText(`{"s":[{"a":{"protocol":"mqtt","mqtt_retain":true,"tls":true}}]}`)
	if err := C(&b, p, COptions{Target: Target{Major: 4, Minor: 3}}); err != nil {
		t.Fatal(err)
	}
	path := c.write(t, "policy.c", b.String())
	for _, test := range []struct{ flags, want string }{
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003001 -DLWS_ROLE_MQTT -DLWS_WITH_TLS", "compiled for libwebsockets 4.3, from 4.3.2 on"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4004000 -DLWS_ROLE_MQTT -DLWS_WITH_TLS", "compiled for libwebsockets 4.3"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003002 -DLWS_WITH_TLS", "needs libwebsockets built with -DLWS_ROLE_MQTT=1"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003002 -DLWS_ROLE_MQTT", "needs libwebsockets built with -DLWS_WITH_SSL=1"},
		{"-DLWS_LIBRARY_VERSION_NUMBER=4003010 -DLWS_ROLE_MQTT -DLWS_WITH_TLS", ""},
	} {
		c.write(t, "checks/libwebsockets.h", "")
		args := append(strings.Fields(test.flags), "-E", "-I", filepath.Join(c.dir, "checks"), "-o", os.DevNull, path)
		out, err := exec.Command(compilers(t)[0], args...).CombinedOutput()
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
