package codegen

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// A cName is a macro whose value is the name of a definition.
type cName struct{ macro, value string }

// nameMacros returns macros for the names in a policy, so that a misspelled name does not
// compile, and macros for counts and maximum sizes. If two names map to one macro, neither
// gets it: a new streamtype must not change the meaning of a macro.
func nameMacros(prefix string, p *policy.Policy) string {
	var names []cName
	seen := map[cName]bool{}
	values := map[string]int{} // number of distinct names of each macro
	add := func(value, kind string, parts ...string) {
		macro := guard(prefix, kind)
		for _, part := range parts {
			symbol := cSymbol(part)
			if symbol == "" || len(part) > maxCSymbol || strings.ContainsFunc(part, func(r rune) bool { return r >= utf8.RuneSelf }) {
				return // the symbol would not identify the name
			}
			macro += "_" + symbol
		}
		if n := (cName{macro, value}); !seen[n] {
			seen[n] = true
			names = append(names, n)
			values[macro]++
		}
	}
	stores := map[*policy.TrustStore]bool{}
	longest, items, der := 0, 0, 0
	for _, st := range p.StreamTypes {
		add(st.Name, "STREAM", st.Name)
		longest, items = max(longest, len(st.Name)), max(items, len(st.Metadata))
		for _, m := range st.Metadata {
			add(m.Name, "METADATA", st.Name, m.Name)
		}
		if t := st.TrustStore; t != nil && !st.Server {
			add(t.Name, "STORE", t.Name)
			stores[t] = true
			for _, x := range t.Stack {
				der = max(der, len(x.DER))
			}
		}
		for _, x := range []*policy.Cert{st.ServerCert, st.ServerKey} {
			if x != nil && st.Server {
				der = max(der, len(x.DER))
			}
		}
	}
	var b strings.Builder
	b.WriteString("\n/* Names. */\n")
	for _, n := range names {
		if values[n.macro] == 1 {
			fmt.Fprintf(&b, "#define %s %s\n", n.macro, macroString(n.value))
		} else if values[n.macro] > 1 {
			fmt.Fprintf(&b, "/* two names could be %s */\n", n.macro)
			values[n.macro] = 0 // define it once
		}
	}
	b.WriteString("\n/* Counts, and the largest sizes in bytes; of names with their NUL. */\n")
	for _, n := range []struct {
		macro string
		n     int
	}{
		{"STREAMS", len(p.StreamTypes)}, {"STORES", len(stores)}, {"MAX_METADATA", items}, {"MAX_STREAM_NAME", longest + 1}, {"MAX_DER", der},
	} {
		fmt.Fprintf(&b, "#define %s %d\n", guard(prefix, n.macro), n.n)
	}
	return b.String()
}

// macroString returns a string literal as the value of a macro.
func macroString(s string) string { return strings.ReplaceAll(cString(s), "\n", " \\\n\t") }
