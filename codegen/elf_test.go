package codegen

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// identified returns the part of a policy that a program with its identity holds.
func identified(p *policy.Policy) *policy.Policy {
	q := TablesOnly(p)
	q.Product, q.Release, q.SchemaVersion = p.Product, p.Release, p.SchemaVersion
	return q
}

// linkers build an ELF file of each kind. pie and shared are relocated when they are
// loaded; i386, arm and s390x have other sizes and byte orders.
var linkers = map[string][]string{
	"object":  {"gcc", "-c"},
	"pie":     {"gcc", "-pie", "-fPIE"},
	"no-pie":  {"gcc", "-no-pie", "-fno-pie"},
	"shared":  {"gcc", "-shared", "-fPIC"},
	"32 bit":  {"clang", "--target=i386-linux-gnu", "-ffreestanding", "-fPIC", "-c"},
	"arm":     {"clang", "--target=arm-none-eabi", "-ffreestanding", "-c"},
	"aarch64": {"clang", "--target=aarch64-linux-gnu", "-ffreestanding", "-fPIC", "-c"},
	"riscv32": {"clang", "--target=riscv32-unknown-elf", "-ffreestanding", "-c"},
	"s390x":   {"clang", "--target=s390x-linux-gnu", "-ffreestanding", "-c"},
	"mips":    {"clang", "--target=mips-linux-gnu", "-ffreestanding", "-c"},
	"powerpc": {"clang", "--target=powerpc-linux-gnu", "-ffreestanding", "-c"},
	// If CROSS is set.
	"xtensa object": {"xtensa-lx106-elf-gcc", "-ffreestanding", "-c"},
	"xtensa":        {"xtensa-lx106-elf-gcc", "-ffreestanding", "-nostdlib", "-Wl,-e,main"},
}

// TestReadELF checks that the tables in an ELF file mean the policy that they were compiled
// from. For each kind of file and release line it reads one policy, and for one kind and
// line all.
func TestReadELF(t *testing.T) {
	c := newCTest(t)
	files := policyFiles(t)
	for _, dir := range []string{"../fixtures/*.json", "../fixtures/codegen/*.json", filepath.Join(os.Getenv("SSPOLICY_CORPUS"), "*/*.json")} {
		more, err := filepath.Glob(dir)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, diags := compileText(string(text))
		if schema.HasErrors(diags) {
			continue
		}
		every := strings.Contains(file, "every-")
		for _, target := range targets() {
			if target != DefaultTarget && !every {
				continue
			}
			var b strings.Builder
			if err := C(&b, p, COptions{Target: target}); err != nil || strings.Contains(b.String(), `\000`) {
				continue // the target cannot hold it, or C a string
			}
			source := c.write(t, target.String()+"/tables.c", b.String()+
				"\nint main(void)\n{\n\tconst lws_ss_policy_t *volatile head = &_ss_static_policy_entry;\n\treturn !head || !_ss_policy_identity.text;\n}\n")
			for kind, linker := range linkers {
				if kind != "object" && (!every || target != DefaultTarget && target != targets()[0]) {
					continue
				}
				if strings.HasPrefix(kind, "xtensa") && os.Getenv("CROSS") == "" {
					continue
				}
				n++
				image := filepath.Join(c.dir, "image")
				args := append(linker[1:len(linker):len(linker)], "-I", filepath.Join(c.dir, target.String()), "-o", image, source)
				if !strings.Contains(b.String(), "SIGV4") {
					args = append(args, "-DNO_LWS_WITH_SECURE_STREAMS_AUTH_SIGV4") // the default build of lws
				}
				if out, err := exec.Command(linker[0], args...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", kind, err, out)
				}
				checkELF(t, fmt.Sprintf("%s for lws %v, %s", file, target, kind), image, ELFOptions{Targets: []Target{target}}, p)
			}
		}
	}
	if n < 40 {
		t.Errorf("%d images, want at least 40", n)
	}
}

// checkELF checks that the one reading of a file means a policy, and that its source
// text compiles to the same.
func checkELF(t *testing.T, name, file string, o ELFOptions, p *policy.Policy) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	readings, err := ReadELF(text, o)
	if err != nil || len(readings) != 1 {
		t.Errorf("%s: %d readings, error %v", name, len(readings), err)
		return
	}
	want := JSON(identified(p))
	got := JSON(readings[0].Policy)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", name, diff)
		return
	}
	again, diags := compileText(got)
	for _, d := range diags {
		t.Errorf("%s: the source does not compile: %s", name, d.Message)
	}
	if diff := cmp.Diff(want, JSON(identified(again))); diff != "" {
		t.Errorf("%s: compiled again: %s", name, diff)
	}
}

// TestReadC checks that C source means the policy that it was compiled from, with the
// via-socks5 of the policy.
func TestReadC(t *testing.T) {
	dir := t.TempDir()
	files := append(policyFiles(t), "../fixtures/station.json")
	if corpus := os.Getenv("SSPOLICY_CORPUS"); corpus != "" {
		more, err := filepath.Glob(filepath.Join(corpus, "*/*.json"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, diags := compileText(string(text))
		if schema.HasErrors(diags) {
			continue
		}
		var header, source strings.Builder
		o := COptions{Prefix: "my_"}
		if err := CWithHeader(&header, &source, "policy.h", p, o); err != nil || strings.Contains(source.String(), `\000`) {
			continue
		}
		for name, text := range map[string]string{"policy.h": header.String(), "policy.c": source.String()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		symbol := ELFOptions{Symbol: "my_static_policy_entry"}
		readings, err := ReadC(t.Context(), []string{"cc"}, filepath.Join(dir, "policy.c"), symbol)
		if err != nil || len(readings) != 1 {
			t.Errorf("%s: %d readings, error %v", file, len(readings), err)
			continue
		}
		want := identified(p)
		want.SOCKS5Proxy = p.SOCKS5Proxy
		if diff := cmp.Diff(JSON(want), JSON(readings[0].Policy)); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
		if n++; n > 1 {
			continue
		}
		if _, err := ReadC(t.Context(), []string{"cc"}, filepath.Join(dir, "policy.h"), symbol); err == nil || !strings.Contains(err.Error(), "my_static_policy_entry is in another file") {
			t.Errorf("%s: the header alone: error %v", file, err)
		}
	}
	if n < 5 {
		t.Errorf("%d policies, want at least 5", n)
	}
}

// policy2c is the output of lws's policy2c, in its form and with its omissions.
const policy2c = `
static const uint32_t _rbo_bo_0[] = { 1000, 2000, };
static const lws_retry_bo_t _rbo_0 = { .retry_ms_table = _rbo_bo_0, .retry_ms_table_count = 2, .conceal_count = 2, };
static const uint8_t _ss_der_a[] = { 0x30, 0x01, };
static const uint8_t _ss_der_b[] = { 0x30, 0x02, };
static const lws_ss_x509_t _ss_x509_a = { .vhost_name = "a", .ca_der = _ss_der_a, .ca_der_len = 2, };
static const lws_ss_x509_t _ss_x509_b = { .vhost_name = "b", .ca_der = _ss_der_b, .ca_der_len = 2, };
static const lws_ss_trust_store_t _ss_ts_both = { .name = "both", .ssx509 = { &_ss_x509_b, &_ss_x509_a, } };
static const lws_ss_metadata_t _md_two_x = { .name = "x", .value__may_own_heap = (void *)"x:", .length = 0, .value_length = 2, };
static const lws_ss_policy_t _ssp_two = {
	.streamtype = "two", .endpoint = "example.com", .flags = 0x11, .port = 443, .protocol = 0,
	.metadata = (void *)&_md_two_x, .metadata_count = 1, .retry_bo = &_rbo_0,
	.u = { .http = { .method = "GET", .url = "x", } }, .trust = { .store = &_ss_ts_both, },
},
_ssp_one = { .next = (void *)&_ssp_two, .streamtype = "one", .endpoint = "example.org", .port = 1, .protocol = 4, };
#define _ss_static_policy_entry _ssp_one
`

func TestReadPolicy2c(t *testing.T) {
	c := newCTest(t)
	source := c.write(t, "5.0/policy2c.h", policy2c)
	program := c.write(t, "5.0/policy2c.c", "#include <libwebsockets.h>\n#include \"policy2c.h\"\nconst void *volatile head = &_ss_static_policy_entry;\nint main(void) { return !head; }\n")
	image := filepath.Join(c.dir, "image")
	run(t, "gcc", "-I", filepath.Join(c.dir, "5.0"), "-o", image, program)
	text, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	want, diags := compileText(`{
		"retry":[{"r":{"backoff":[1000,2000],"conceal":2}}],
		"certs":[{"b":"MAI="},{"a":"MAE="}],
		"trust_stores":[{"name":"both","stack":["b","a"]}],
		"s":[{"two":{"protocol":"h1","endpoint":"example.com","opportunistic":true,"port":443,"tls":true,"tls_trust_store":"both","retry":"r",
			"metadata":[{"x":"x:"}],"http_method":"GET","http_url":"x"}},
			{"one":{"protocol":"raw","endpoint":"example.org","port":1}}]}`)
	for _, d := range diags {
		t.Fatal(d.Message)
	}
	for name, read := range map[string]func(o ELFOptions) ([]Reading, error){
		"ELF": func(o ELFOptions) ([]Reading, error) { return ReadELF(text, o) },
		"C":   func(o ELFOptions) ([]Reading, error) { return ReadC(t.Context(), []string{"cc"}, source, o) },
	} {
		// The protocol with number 4 is raw in 4.5, and mqtt in 5.0.
		readings, err := read(ELFOptions{})
		if err != nil || len(readings) != 2 || readings[0].Target.String() != "5.0" || readings[0].Policy.StreamType("one").Protocol != policy.ProtocolMQTT {
			t.Errorf("%s: %+v, error %v", name, readings, err)
		}
		readings, err = read(ELFOptions{Targets: []Target{{Major: 4, Minor: 5}}})
		if err != nil || len(readings) != 1 {
			t.Errorf("%s for lws 4.5: %d readings, error %v", name, len(readings), err)
			continue
		}
		if diff := cmp.Diff(JSON(TablesOnly(want)), JSON(readings[0].Policy)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// FuzzReadELF checks that no file makes ReadELF panic, and that each reading has a source
// text.
func FuzzReadELF(f *testing.F) {
	dir := f.TempDir()
	source, image := filepath.Join(dir, "seed.c"), filepath.Join(dir, "image")
	text := "#include <libwebsockets.h>\n" + policy2c + "const void *const head = &_ss_static_policy_entry;\nint main(void) { return 0; }\n"
	if err := errors.Join(os.WriteFile(source, []byte(text), 0o644), os.WriteFile(filepath.Join(dir, "libwebsockets.h"), []byte(declarations(DefaultTarget)), 0o644)); err != nil {
		f.Fatal(err)
	}
	for _, kind := range []string{"object", "pie", "arm", "s390x"} {
		linker := linkers[kind]
		if out, err := exec.Command(linker[0], append(linker[1:len(linker):len(linker)], "-Os", "-I", dir, "-o", image, source)...).CombinedOutput(); err != nil {
			f.Fatalf("%s: %v\n%s", kind, err, out)
		}
		text, err := os.ReadFile(image)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "")
		f.Add(text, "_ssp_two")
	}
	f.Fuzz(func(t *testing.T, text []byte, symbol string) {
		readings, err := ReadELF(text, ELFOptions{Symbol: symbol})
		if err == nil && len(readings) == 0 {
			t.Fatal("neither a reading nor an error")
		}
		for _, r := range readings {
			if d := schema.Parse("policy.json", []byte(JSON(r.Policy))); schema.HasErrors(d.Syntax) {
				t.Fatalf("%s: %s", d.Syntax[0].Message, d.Source.Text)
			}
		}
	})
}
