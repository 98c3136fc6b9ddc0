package codegen

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/schema"
)

// ELFOptions configure [ReadELF].
type ELFOptions struct {
	// Symbol names the head of the list of streamtypes, or a pointer to it. If it
	// is "", ReadELF finds the tables that [C] and lws's policy2c write.
	Symbol string

	// Targets are the release lines of lws that the file may be built with. If
	// empty, it is the target in the identity of the file or, without one, all.
	Targets []Target
}

// A Reading is the interpretation of tables for a release line of lws.
type Reading struct {
	Target Target // the newest of those with this interpretation
	Policy *policy.Policy

	// Identity is the identity of the tables that [C] writes, if the file has that
	// of exactly one policy. Release, product and schema-version of Policy then
	// come from it.
	Identity *Identity
}

// ReadELF reads the tables of a policy from an ELF program, library or object file
// of any machine. It returns every plausible reading, newest release line first.
// There are several if the file does not tell for which release line and options of
// lws it was built, and the readings differ.
//
// Settings that the tables do not hold are empty: the names of backoff schemes, the
// policy's via-socks5 and, without an identity, release, product and
// schema-version. A missing string and an empty string both read as "".
func ReadELF(file []byte, o ELFOptions) ([]Reading, error) {
	m, err := newImage(file)
	if err != nil {
		return nil, err
	}
	head, size, err := m.head(o.Symbol)
	if err != nil {
		return nil, err
	}
	known := identities(file)
	targets := slices.Clone(o.Targets)
	if len(targets) == 0 {
		for _, i := range known {
			targets = append(targets, i.Target)
		}
	}
	if len(targets) == 0 {
		for _, v := range slices.Backward(schema.Versions) {
			targets = append(targets, Target(v))
		}
	}
	return m.readings(head, size, builds(m, targets), known)
}

// readings returns the readings of the tables that begin at head, for each build
// whose streamtypes have this size. A size of 0 matches all.
func (m *image) readings(head, size uint64, builds []build, known []Identity) ([]Reading, error) {
	var readings []Reading
	var failed error
	meanings := map[string]bool{}
	for _, b := range builds {
		if size > 0 && uint64(b.shape("lws_ss_policy_t").size) != size {
			continue
		}
		p, err := newDecoder(m, b).policy(head)
		if err != nil {
			failed = cmp.Or(failed, fmt.Errorf("read as tables for lws %v: %w", b.target, err))
			continue
		}
		if meaning := JSON(p); !meanings[meaning] {
			meanings[meaning] = true
			readings = append(readings, Reading{Target: b.target, Policy: p})
		}
	}
	if len(readings) == 0 {
		return nil, cmp.Or(failed, sizeError(size, builds, known))
	}
	if len(known) == 1 {
		for i := range readings {
			p := readings[i].Policy
			p.Product, p.Release, p.SchemaVersion = known[0].Product, known[0].Release, known[0].SchemaVersion
			readings[i].Identity = &known[0]
		}
	}
	return readings, nil
}

// sizeError returns the error for a size that no build's streamtypes have.
func sizeError(size uint64, builds []build, known []Identity) error {
	var targets []string
	for _, b := range builds {
		if t := b.target.String(); !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	err := fmt.Errorf("lws %s has no streamtype of %d bytes", strings.Join(targets, ", "), size)
	if len(known) == 1 {
		err = fmt.Errorf("%w; the tables say lws=%v", err, known[0].Target)
	}
	return err
}

// builds returns the builds of lws to try. The first build of each target has all
// options.
func builds(m *image, targets []Target) (list []build) {
	options := [][]string{nil, {"LWS_WITH_SECURE_STREAMS_AUTH_SIGV4"}, {"LWS_WITH_SERVER"}, {"LWS_WITH_SECURE_STREAMS_AUTH_SIGV4", "LWS_WITH_SERVER"}}
	for _, t := range targets {
		for _, without := range options {
			list = append(list, build{t, without, m.abi()})
		}
	}
	return list
}

// abi returns the layout rules for structs.
func (m *image) abi() *abi {
	a := &abi{pointer: m.pointer, int64: 8}
	if m.machine == elf.EM_386 {
		a.int64 = 4
	}
	return a
}

// named returns the symbols whose names fit, without duplicates.
func (m *image) named(fits func(name string) bool) (list []elf.Symbol) {
	seen := map[elf.Symbol]bool{}
	for _, s := range m.symbols {
		key := elf.Symbol{Name: s.Name, Value: s.Value}
		if s.Section != elf.SHN_UNDEF && fits(s.Name) && !seen[key] {
			seen[key] = true
			list = append(list, s)
		}
	}
	return list
}

// head returns the address of the head of the list of streamtypes, and its size, or
// 0 if that is unknown.
func (m *image) head(symbol string) (address, size uint64, err error) {
	fits := func(name string) bool { return name == symbol }
	if symbol == "" {
		fits = func(name string) bool { return strings.HasSuffix(name, "static_policy_entry") }
	}
	found := m.named(fits)
	switch {
	case len(found) > 0:
	case symbol != "":
		return 0, 0, fmt.Errorf("the ELF file has no symbol %s", symbol)
	case len(m.symbols) == 0:
		return 0, 0, errors.New("the ELF file has no symbols: read it before it is stripped")
	default:
		// For policy2c, the head is the streamtype that no other one points to.
		found = m.named(func(name string) bool { return strings.HasPrefix(name, "_ssp_") })
		next := map[uint64]bool{}
		for _, s := range found {
			if at, err := m.address(s.Value); err == nil {
				next[at] = true
			}
		}
		found = slices.DeleteFunc(found, func(s elf.Symbol) bool { return next[s.Value] })
		if len(found) == 0 {
			return 0, 0, errors.New("the ELF file has no symbol of the head of a list of streamtypes, such as _ss_static_policy_entry: is it stripped? Otherwise name the head with --symbol")
		}
	}
	if len(found) > 1 {
		var names []string
		for _, s := range found[:min(len(found), 10)] {
			names = append(names, s.Name)
		}
		if len(found) > len(names) {
			names = append(names, "…")
		}
		return 0, 0, fmt.Errorf("the ELF file has several policies: name one of the symbols %s", strings.Join(names, ", "))
	}
	address, size = found[0].Value, found[0].Size
	if size == uint64(m.pointer) {
		if address, err = m.address(address); err != nil {
			return 0, 0, err
		}
		size = 0
	}
	return address, size, nil
}
