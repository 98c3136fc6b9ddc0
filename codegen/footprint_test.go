package codegen

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crossCompilers are the compilers of the architectures in a footprint. Those without
// need are used if CROSS is set, as "make soak" does.
var crossCompilers = map[string]struct {
	need bool
	gcc  []string
}{
	"arm":     {true, []string{"arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-ffreestanding"}},
	"riscv32": {false, []string{"riscv64-unknown-elf-gcc", "-march=rv32imc", "-mabi=ilp32", "-ffreestanding"}},
	"xtensa":  {false, []string{"xtensa-lx106-elf-gcc", "-ffreestanding"}},
	"i386":    {true, []string{"i686-linux-gnu-gcc", "-ffreestanding"}},
	"aarch64": {false, []string{"aarch64-linux-gnu-gcc", "-ffreestanding"}},
	"riscv64": {false, []string{"riscv64-unknown-elf-gcc", "-march=rv64gc", "-mabi=lp64d", "-ffreestanding"}},
	"x86-64":  {true, []string{"gcc"}},
}

// TestCFootprint compares footprints with the sections of compiled tables, to the byte.
func TestCFootprint(t *testing.T) {
	c := newCTest(t)
	files := policyFiles(t)
	if dir := os.Getenv("SSPOLICY_CORPUS"); dir != "" {
		more, err := filepath.Glob(dir + "/*/*.json")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	compared := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := compileText(string(text))
		for _, target := range targets() {
			if target != DefaultTarget && !strings.HasPrefix(file, "testdata") {
				continue // one target is enough for many policies
			}
			o := COptions{Target: target}
			footprint, err := CFootprint(p, o)
			if err != nil {
				continue
			}
			var b strings.Builder
			if err := C(&b, p, o); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), `\000`) {
				continue // compilers place strings with a NUL elsewhere
			}
			for _, f := range footprint {
				if !crossCompilers[f.ABI].need && os.Getenv("CROSS") == "" {
					continue
				}
				for _, flags := range [][]string{{"-Os", "-fno-pic"}, {"-O2", "-fno-pic"}, {"-Os", "-fpic"}, {"-O2", "-fpic"}} {
					if target != DefaultTarget && (f.ABI != "arm" || !slices.Equal(flags, []string{"-O2", "-fno-pic"})) {
						continue // architectures differ in the same way for all targets
					}
					if !strings.Contains(b.String(), "SIGV4") {
						flags = append(flags, "-DNO_LWS_WITH_SECURE_STREAMS_AUTH_SIGV4") // the default build of lws
					}
					if diff := c.measure(t, f, target, b.String(), flags); diff != "" {
						t.Errorf("%s for lws %v, %s %v: %s", file, target, f.ABI, flags, diff)
					}
					compared++
				}
			}
		}
	}
	if compared < 50 {
		t.Errorf("%d tables, want at least 50", compared)
	}
}

// TestCFootprintBuild compares footprints for builds of lws that change structs.
func TestCFootprintBuild(t *testing.T) {
	c := newCTest(t)
	p := compileFile(t, "../fixtures/weather.json")
	seen := map[int]string{}
	for _, test := range []struct{ options, flags []string }{
		{[]string{"LWS_WITHOUT_SERVER=0"}, []string{"-DNO_LWS_WITH_SECURE_STREAMS_AUTH_SIGV4"}},
		{[]string{"LWS_WITHOUT_SERVER=1"}, []string{"-DNO_LWS_WITH_SECURE_STREAMS_AUTH_SIGV4", "-DNO_LWS_WITH_SERVER"}},
		{[]string{"-DLWS_WITH_SECURE_STREAMS_AUTH_SIGV4=ON"}, nil},
	} {
		o := COptions{Build: map[string]bool{}}
		for _, option := range test.options {
			macro, defined, err := BuildOption(option)
			if err != nil {
				t.Fatal(err)
			}
			o.Build[macro] = defined
		}
		var b strings.Builder
		if err := C(&b, p, o); err != nil {
			t.Fatal(err)
		}
		footprint, err := CFootprint(p, o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := c.measure(t, footprint[0], DefaultTarget, b.String(), append(test.flags, "-Os", "-fno-pic")); diff != "" {
			t.Errorf("%v: %s", test.options, diff)
		}
		if other := seen[footprint[0].Os.Total]; other != "" {
			t.Errorf("%v and %s give the same size", test.options, other)
		}
		seen[footprint[0].Os.Total] = test.options[0]
	}
	for option, want := range map[string]string{
		"LWS_WITH_SECURE_STREAMS=0": "tables need libwebsockets built with -DLWS_WITH_SECURE_STREAMS=1",
		"LWS_WITH_SSL=0":            `streamtype "get_weather": tls needs libwebsockets built with -DLWS_WITH_SSL=1`,
		"LWS_ROLE_H1=off":           `streamtype "get_weather": protocol h1 needs libwebsockets built with -DLWS_ROLE_H1=1`,
		"LWS_WITH_SSL":              `"LWS_WITH_SSL" has no value: want LWS_WITH_SSL=1 or LWS_WITH_SSL=0`,
		"LWS_WITH_SSL=maybe":        `"LWS_WITH_SSL=maybe": "maybe" is neither ON nor OFF`,
		"LWS_WITH_CGI=1":            `tables do not depend on "LWS_WITH_CGI=1", but on LWS_WITH_SECURE_STREAMS, LWS_WITH_SSL`,
		"LWS_WITH_SSL:BOOL=ON":      "",
	} {
		macro, defined, err := BuildOption(option)
		if err == nil {
			err = C(&strings.Builder{}, p, COptions{Build: map[string]bool{macro: defined}})
		}
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: error %v, want %q", option, err, want)
		}
	}
}

// TestCFootprintParts checks the sizes of streamtypes and certificates.
func TestCFootprintParts(t *testing.T) {
	p, diags := compileText(`{
		"certs":[{"x":"AAAA"},{"y":"AAAAAAAA"}],
		"trust_stores":[{"name":"one","stack":["x"]},{"name":"both","stack":["x","y"]}],
		"s":[
			{"a":{"endpoint":"h","tls":true,"tls_trust_store":"one","http_url":""}},
			{"b":{"endpoint":"h","tls":true,"tls_trust_store":"both","http_url":""}},
			{"c":{"endpoint":"other","protocol":"raw"}}
		]}`)
	for _, d := range diags {
		t.Fatal(d.Message)
	}
	list, err := CFootprint(p, COptions{})
	if err != nil {
		t.Fatal(err)
	}
	const (
		stream, store, x509        = 156, 36, 20 // on 32 bit
		h, url, nameX, nameY       = 2, 1, 2, 2
		nameA, nameOne, nameB, nms = 2, 4, 2, 5
	)
	want := []StreamTypeFootprint{
		{"a", stream + nameA + h + url + store + nameOne + x509 + nameX + 3, stream + nameA + store + nameOne},
		{"b", stream + nameB + h + url + store + nms + 2*x509 + nameX + 3 + nameY + 6, stream + nameB + store + nms + x509 + nameY + 6},
		{"c", stream + 2 + 6, stream + 2 + 6},
	}
	if diff := cmp.Diff(want, list[0].StreamTypes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]CertificateFootprint{{"x", x509 + nameX + 3, []string{"a", "b"}}, {"y", x509 + nameY + 6, []string{"b"}}}, list[0].Certificates); diff != "" {
		t.Error(diff)
	}
}

// measure compiles tables for the architecture of a footprint, and returns the
// difference to it.
func (c *cTest) measure(t *testing.T, f Footprint, target Target, tables string, flags []string) string {
	t.Helper()
	dir := filepath.Join(c.dir, target.String())
	object := filepath.Join(dir, "tables.o")
	source := c.write(t, target.String()+"/tables.c", tables+
		"\nconst lws_ss_policy_t *entry(void);\nconst lws_ss_policy_t *entry(void)\n{\n\treturn &_ss_static_policy_entry;\n}\n")
	cc := crossCompilers[f.ABI].gcc
	need(t, cc[0])
	run(t, cc[0], slices.Concat(cc[1:], flags, []string{"-std=c99", "-w", "-c", "-I", dir, "-o", object, source})...)
	sections := f.Os
	if slices.Contains(flags, "-O2") {
		sections = f.O2
	}
	want := map[string]int{"total": sections.Total, "relocated": 0, "relocations": f.Relocations}
	if slices.Contains(flags, "-fpic") {
		want["total"], want["relocated"] = sections.PIC, sections.Relocated
	}
	return cmp.Diff(want, sectionsOf(t, object))
}

// sectionsOf returns the sizes of sections of an object file with tables.
func sectionsOf(t *testing.T, object string) map[string]int {
	t.Helper()
	f, err := elf.Open(object)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := map[string]int{"total": 0, "relocated": 0, "relocations": 0}
	for _, s := range f.Sections {
		relocated := strings.HasPrefix(s.Name, ".data.rel.ro")
		switch {
		case relocated || strings.HasPrefix(s.Name, ".rodata") || strings.HasPrefix(s.Name, ".srodata"): // small, on RISC-V
			got["total"] += int(s.Size)
			if relocated {
				got["relocated"] += int(s.Size)
			}
		case s.Type == elf.SHT_RELA || s.Type == elf.SHT_REL:
			if of := f.Sections[s.Info].Name; strings.HasPrefix(of, ".data.rel.ro") || strings.HasPrefix(of, ".rodata") {
				got["relocations"] += int(s.Size / s.Entsize)
			}
		case s.Flags&(elf.SHF_WRITE|elf.SHF_EXECINSTR) == elf.SHF_WRITE && s.Size > 0:
			t.Errorf("%d bytes of the tables are in %s", s.Size, s.Name)
		}
	}
	return got
}
