package codegen

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/schema"
)

// A difference is one between what lws holds of a policy and what the tables
// hold: of all lines that begin so.
type difference struct{ at, reason string }

// differences has, by the policy, all there are. Those of a version alone are
// under that as well.
var differences = map[string][]difference{
	"complete": {},
	"misread": {
		{"s[1].retry.conceal", "lws takes the newest scheme whose name begins with the reference"},
		{"s[1].tls_trust_store.", "and so for trust stores; of several certificates in an object it decodes the last alone"},
		{"s[2].http_url", "lws keeps the last piece of a string that is longer than 253 bytes"},
		{"s[3].metadata[0].token", "lws takes the first known header that begins with the mapping, be it empty"},
		{"s[3].metadata[1].token", "and so for one letter"},
		{"s[3].metadata[2].token", "lws knows no header with capitals"},
		{"s[4].payload_fmt", "lws writes the halves of a surrogate pair one by one, which is no UTF-8"},
		{"s[5].endpoint", "without an endpoint lws crashes when it connects"},
		{"s[5].http_url", "without a url lws 4.1 and 4.2 ask for none, and on ws all versions for another subprotocol"},
		{"s[7]", "of two streamtypes with the same name lws never reaches the first, and the tables leave it out"},
		{"s[8]", "so that there is one less"},
	},
	"misread 5.0.0": {
		{"s[0].retry.backoff[", "lws 4.4 to 5.0 keep the first wait alone"},
	},
	"options": {
		{"s[0].options[", "lws makes a streamtype of options"},
		{"s[0].http_url", "and gives it the keys that come after"},
		{"s[1]", "this one"},
	},
}

// The tables hold what lws's own parser makes of a policy, member by member,
// except where that is a mistake of the parser.
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
				t.Errorf("%s, lws %s: there is no difference at %s (%s)", name, version, d.at, d.reason)
			}
		}
	}
	t.Logf("%d dumps, %d lines; %d lines differ as expected", len(dumps), members, known)
}
