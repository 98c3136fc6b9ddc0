package codegen

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCPool checks that the tables of several policies in one file hold each of them.
func TestCPool(t *testing.T) {
	c := newCTest(t)
	dir := filepath.Join(c.dir, "5.0")
	var list []Variant
	var main strings.Builder
	dump, err := filepath.Abs("testdata/dump.c")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&main, "#include \"policies.h\"\n#define DUMP_ONLY\n#include \"%s\"\n#include <stdlib.h>\nint main(int argc, char **argv)\n{\n\tint n = argc > 1 ? atoi(argv[1]) : -1;\n", dump)
	for i, file := range policyFiles(t) {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		list = append(list, Variant{Name: name, Policy: compileFile(t, file)})
		fmt.Fprintf(&main, "\tif (n == %d)\n\t\tdump(&_ss_%s_static_policy_entry);\n", i, purify(name))
	}
	main.WriteString("\treturn 0;\n}\n")
	var header, source strings.Builder
	if err := CPool(&header, &source, "policies.h", list, COptions{}); err != nil {
		t.Fatal(err)
	}
	c.write(t, "5.0/policies.h", header.String())
	files := []string{c.write(t, "5.0/policies.c", source.String()), c.write(t, "5.0/main.c", main.String())}
	program := filepath.Join(dir, "program")
	compileC(t, compilers[0], append([]string{"-I", dir, "-o", program}, files...)...)
	for i, v := range list {
		got := strings.Split(strings.TrimSpace(run(t, program, fmt.Sprint(i))), "\n")
		sort.Strings(got)
		want := slices.DeleteFunc(dumpPolicy(v.Policy, DefaultTarget), func(l string) bool { return strings.HasPrefix(l, "via-socks5") }) // written as a macro
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", v.Name, diff)
		}
	}

	// Equal parts are written once.
	one, err := CPoolFootprint(list[:1], COptions{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := CPoolFootprint([]Variant{list[0], {Name: "same", Policy: list[0].Policy}}, COptions{})
	if err != nil {
		t.Fatal(err)
	}
	const stream = 156 // on 32 bit: the head of the list, which is not shared
	if got := two[0].Structs - one[0].Structs; got != stream || one[0].DER != two[0].DER || one[0].Strings != two[0].Strings {
		t.Errorf("the same policy again adds %d bytes of structs, %d of certificates, %d of strings; want %d, 0, 0", got, two[0].DER-one[0].DER, two[0].Strings-one[0].Strings, stream)
	}
}
