package codegen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// maxC is the maximum size of C source with tables, and of its object file.
const maxC = 64 << 20

// ReadC reads the tables of a policy from C source, as [C] and lws's policy2c write
// it. For each target it compiles the file with a C compiler, against declarations
// that replace lws's headers, and reads the object file. compiler is the name of
// the compiler and its first arguments. The readings are as for [ReadELF], and
// include the policy's via-socks5.
func ReadC(ctx context.Context, compiler []string, file string, o ELFOptions) ([]Reading, error) {
	if len(compiler) == 0 {
		return nil, errors.New("no C compiler is named")
	}
	text, err := readfile.Regular(file, maxC) // the compiler reads it again
	if err != nil {
		return nil, err
	}
	if other := notC(text); other != "" {
		return nil, fmt.Errorf("the file is %s; want tables in C, as compile --lang c or policy2c of lws writes them", other)
	}
	if o.Symbol == "" {
		o.Symbol, err = headOf(text)
	} else {
		err = checkSymbol(o.Symbol)
	}
	if err != nil {
		return nil, err
	}
	file, err = filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(file, "\"\\\n") && filepath.Separator == '/' {
		return nil, fmt.Errorf("invalid name of a C file: %q", file)
	}
	dir, err := os.MkdirTemp("", "sspolicy-import-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	targets := slices.Clone(o.Targets)
	if len(targets) == 0 {
		for _, v := range slices.Backward(schema.Versions) {
			targets = append(targets, Target(v))
		}
	}
	var all []Reading
	var failed error
	for _, t := range targets {
		object, err := compileTables(ctx, dir, compiler, file, o.Symbol, t)
		if err != nil {
			failed = firstError(failed, err)
			continue
		}
		r, err := readObject(object, t)
		if err != nil {
			failed = firstError(failed, err)
			continue
		}
		if r.Identity != nil { // the file is for this target only
			return []Reading{r}, nil
		}
		if !slices.ContainsFunc(all, func(known Reading) bool { return JSON(known.Policy) == JSON(r.Policy) }) {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		undeclared := regexp.MustCompile(`\b` + o.Symbol + `\S{0,3} undeclared|undeclared identifier '` + o.Symbol + `'`) // gcc and clang
		if _, refused := errors.AsType[*exec.ExitError](failed); refused && undeclared.MatchString(failed.Error()) {
			failed = fmt.Errorf("the file does not declare %s: want tables in C, as compile --lang c or policy2c of lws writes them; name the head of other tables with --symbol", o.Symbol)
		}
		return nil, failed
	}
	return all, nil
}

// headDeclaration matches the declaration of the head of a list of streamtypes.
var headDeclaration = regexp.MustCompile(`\blws_ss_policy_t\s+(\w*static_policy_entry)\b`)

// headOf returns the head of the list of streamtypes in C source: the default one,
// unless the source declares another.
func headOf(text []byte) (string, error) {
	const normal = defaultPrefix + "static_policy_entry"
	var names []string
	for _, m := range headDeclaration.FindAllSubmatch(text, -1) {
		if name := string(m[1]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch {
	case len(names) == 0 || slices.Contains(names, normal):
		return normal, nil
	case len(names) == 1:
		return names[0], nil
	}
	return "", fmt.Errorf("the C file has several policies: name one of the symbols %s", strings.Join(names, ", "))
}

// firstError returns the most specific error about a file that fits no target: the
// first, unless it only rejects the target.
func firstError(before, err error) error {
	if before == nil || strings.Contains(before.Error(), "was compiled for libwebsockets") {
		return err
	}
	return before
}

// compileTables returns an object file with the tables, and pointers to the values
// of macros.
func compileTables(ctx context.Context, dir string, compiler []string, file, symbol string, t Target) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "#include \"libwebsockets.h\"\n#include \"%s\"\nconst lws_ss_policy_t *const sspolicy_head = &%s;\n", filepath.ToSlash(file), symbol)
	if prefix, ok := strings.CutSuffix(symbol, "static_policy_entry"); ok {
		for _, m := range []struct{ name, macro string }{{"sspolicy_identity", "policy_text"}, {"sspolicy_socks5", "socks5_proxy"}} {
			fmt.Fprintf(&b, "#if defined(%s%s)\nconst char *const %s = %[1]s%[2]s;\n#endif\n", prefix, m.macro, m.name)
		}
	}
	source, header, object := filepath.Join(dir, "tables.c"), filepath.Join(dir, "libwebsockets.h"), filepath.Join(dir, "tables.o")
	if err := errors.Join(os.WriteFile(source, []byte(b.String()), 0o600), os.WriteFile(header, []byte(declarations(t)), 0o600)); err != nil {
		return nil, err
	}
	// Compilers on systems without ELF may be able to target one with it.
	for _, args := range [][]string{nil, {"--target=x86_64-unknown-linux-gnu", "-ffreestanding"}} {
		args = slices.Concat(compiler[1:], args, []string{"-w", "-Wfatal-errors", "-O0", "-I", dir, "-c", "-o", object, source})
		out, err := exec.CommandContext(ctx, compiler[0], args...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("a C compiler is needed, and %s is not in PATH: set CC", compiler[0])
		}
		if err != nil {
			const most = 2000
			return nil, fmt.Errorf("%s, for lws %v: %w\n%.*s", compiler[0], t, err, most, out)
		}
		text, err := readfile.Regular(object, maxC)
		if err != nil || bytes.HasPrefix(text, []byte("\x7fELF")) {
			return text, err
		}
	}
	return nil, fmt.Errorf("%s does not write ELF files: set CC to a compiler that does, such as clang", compiler[0])
}

// readObject reads the object file of compileTables.
func readObject(object []byte, t Target) (Reading, error) {
	m, err := newImage(object)
	if err != nil {
		return Reading{}, err
	}
	head, size, err := m.head("sspolicy_head")
	if err != nil {
		return Reading{}, err
	}
	readings, err := m.readings(head, size, []build{{t, nil, m.abi()}}, identities(object))
	if err != nil {
		return Reading{}, err
	}
	r := readings[0]
	r.Policy.SOCKS5Proxy, err = m.macro("sspolicy_socks5")
	return r, err
}

// macro returns the string that a pointer of compileTables points to, or "".
func (m *image) macro(name string) (string, error) {
	for _, s := range m.symbols {
		if s.Name == name {
			at, err := m.address(s.Value)
			if err != nil {
				return "", err
			}
			return m.text(at)
		}
	}
	return "", nil
}

// TablesOnly returns the part of a policy that the tables of C hold. The rest has
// no effect on lws: release, product, schema-version, the names of backoff schemes,
// and settings for sspolicy alone.
func TablesOnly(p *policy.Policy) *policy.Policy {
	q := &policy.Policy{Metrics: p.Metrics}
	retries := map[*policy.Retry]*policy.Retry{}
	for _, st := range p.StreamTypes {
		s := *st
		if s.Retry != nil {
			if retries[st.Retry] == nil {
				r := *st.Retry
				r.Name = ""
				retries[st.Retry] = &r
			}
			s.Retry = retries[st.Retry]
		}
		s.Metadata = slices.Clone(st.Metadata)
		for i := range s.Metadata {
			s.Metadata[i].Raw = false
		}
		q.StreamTypes = append(q.StreamTypes, &s)
	}
	return q
}
