package codegen

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/schema"
)

// A difference is a prefix of lines that differ between the result of lws's parser and
// the tables.
type difference struct{ at, reason string }

// differences are all differences, by policy, or by policy and version.
var differences = map[string][]difference{
	"complete": {},
	"misread": {
		{"s[1].retry.conceal", "lws takes the newest scheme whose name begins with the reference"},
		{"s[1].tls_trust_store.", "the same for trust stores; of several certificates in an object lws decodes only the last"},
		{"s[2].http_url", "lws keeps the last piece of a string that is longer than 253 bytes"},
		{"s[3].metadata[0].token", "lws takes the first known header that begins with the mapping, even if it is empty"},
		{"s[3].metadata[1].token", "the same for one letter"},
		{"s[3].metadata[2].token", "lws ignores a header with capitals"},
		{"s[4].payload_fmt", "lws writes the halves of a surrogate pair one by one, which is not UTF-8"},
		{"s[5].endpoint", "without an endpoint lws crashes when it connects"},
		{"s[5].http_url", "without a url lws 4.1 and 4.2 request an invalid path, and on ws all versions another subprotocol"},
		{"s[7]", "the tables omit the first of two streamtypes with the same name, which lws never reaches"},
		{"s[8]", "and so have one less"},
	},
	"misread 5.0.0": {
		{"s[0].retry.backoff[", "lws 4.4 to 5.0 keep only the first wait"},
	},
	"options": {
		{"s[0].options[", "lws makes a streamtype of options"},
		{"s[0].http_url", "and gives it the keys that follow"},
		{"s[1]", "this is that streamtype"},
	},
}

// TestCLikeLWS compares tables with the result of lws's own parser, member by member.
// They differ only where the parser misreads the policy.
func TestCLikeLWS(t *testing.T) {
	const dir = "../fixtures/codegen"
	dumps, err := filepath.Glob(dir + "/*.lws-*.txt")
	if err != nil || len(dumps) < 5 {
		t.Fatalf("%d dumps: %v", len(dumps), err)
	}
	c := newCTest(t)
	members, known := 0, 0
	for _, file := range dumps {
		name, version, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".txt"), ".lws-")
		var v schema.Version
		if err := v.UnmarshalText([]byte(version[:strings.LastIndex(version, ".")])); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := compileFile(t, filepath.Join(dir, name+".json"))
		var b strings.Builder
		if err := C(&b, p, COptions{Target: Target(v)}); err != nil {
			t.Fatal(err)
		}
		ours := c.dump(t, Target(v), b.String())
		theirs := strings.Split(strings.TrimSpace(string(text)), "\n")
		members += len(ours)

		expected := slices.Concat(differences[name], differences[name+" "+version])
		seen := make([]bool, len(expected))
		for _, side := range []struct {
			who           string
			lines, others []string
		}{{"lws", theirs, ours}, {"the table", ours, theirs}} {
			for _, line := range side.lines {
				if slices.Contains(side.others, line) {
					continue
				}
				known++
				i := slices.IndexFunc(expected, func(d difference) bool { return strings.HasPrefix(line, d.at) })
				if i < 0 {
					t.Errorf("%s, lws %s: only %s has %.100s", name, version, side.who, line)
					continue
				}
				seen[i] = true
			}
		}
		for i, d := range expected {
			if !seen[i] {
				t.Errorf("%s, lws %s: no difference at %s (%s)", name, version, d.at, d.reason)
			}
		}
	}
	t.Logf("%d dumps, %d lines; %d lines differ as expected", len(dumps), members, known)
}
