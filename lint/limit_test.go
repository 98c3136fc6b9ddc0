package lint_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// TestLimit checks that at most MaxFindings of a rule are reported, with the number of the
// others and their severity, by lint and by the schema.
func TestLimit(t *testing.T) {
	const n = 3 * schema.MaxFindings
	var b strings.Builder
	b.WriteString("{ # sspolicy:ignore missing-port, unknown-key -- not here\n\n \"s\": [ {\n")
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"a%d":{"endpoint":"x.org","zzzzz":1}`, i)
	}
	b.WriteString("} ] }")
	d := schema.Parse("p", []byte(b.String()))
	count, last := map[string]int{}, map[string]schema.Diagnostic{}
	for _, g := range lint.Run(d, rules.All(), lint.Options{}) {
		count[g.Rule]++
		last[g.Rule] = g
	}
	for _, rule := range []string{"unknown-key", "missing-port"} {
		if count[rule] != schema.MaxFindings+1 {
			t.Errorf("%d findings of %s, want %d", count[rule], rule, schema.MaxFindings+1)
		}
		if want := fmt.Sprintf("%d more findings", n-schema.MaxFindings); !strings.HasPrefix(last[rule].Message, want) || last[rule].Severity != schema.Error {
			t.Errorf("%s: the last one is %v %q, want an error %q", rule, last[rule].Severity, last[rule].Message, want)
		}
	}
	if count["unused-suppression"] > 0 {
		t.Errorf("%v, though not all findings are known", last["unused-suppression"].Message)
	}
	// All mistakes are fixed.
	text := strings.ReplaceAll(b.String(), `"zzzzz":1`, `"port":"80"`)
	fixed, applied := lint.Fix(schema.Parse("p", []byte(text)), rules.All(), lint.Options{})
	if len(applied) != n || strings.Contains(fixed.Source.Text, `"80"`) {
		t.Errorf("%d of %d are fixed", len(applied), n)
	}
}
