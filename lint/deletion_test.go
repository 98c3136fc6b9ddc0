package lint_test

import (
	"cmp"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// TestDeletions deletes quotation marks, commas, colons and brackets of policies in turn, and
// fixes the result. If the deletion breaks the syntax, the fix must give the fixed original
// policy, or leave the text unchanged. It tries about DELETIONS places in each policy: 5, or
// 1 if SSPOLICY_CORPUS adds many.
func TestDeletions(t *testing.T) {
	places := "5"
	if os.Getenv("SSPOLICY_CORPUS") != "" {
		places = "1"
	}
	most, err := strconv.Atoi(cmp.Or(os.Getenv("DELETIONS"), places))
	if err != nil || most < 1 {
		t.Fatal("DELETIONS is not a positive number")
	}
	o := lint.Options{}
	right, alone := 0, 0
	for k, text := range readPolicies(t) {
		d := schema.Parse("p", []byte(text))
		if len(d.Syntax) > 0 {
			continue
		}
		fixed, _ := lint.Fix(d, rules.All(), o)
		want := values(t, fixed)
		var places []int
		for i := range text {
			if strings.IndexByte("\",:{}[]", text[i]) >= 0 {
				places = append(places, i)
			}
		}
		step := 1 + len(places)/most
		for n := k % step; n < len(places); n += step {
			i := places[n]
			broken := schema.Parse("p", []byte(text[:i]+text[i+1:]))
			if !schema.HasErrors(broken.Syntax) {
				continue // the deletion was in a string or comment
			}
			switch got, applied := lint.Fix(broken, rules.All(), o); {
			case len(applied) == 0:
				alone++
			case !schema.HasErrors(got.Syntax) && values(t, got) == want:
				right++
			default:
				t.Errorf("without the %q at %v of %.80q the fix makes it worse: %v", text[i], d.Source.Position(i), text, applied)
			}
		}
	}
	t.Logf("%d repaired, %d unchanged", right, alone)
	if right < 20*alone {
		t.Errorf("only %d of %d mistakes are repaired", right, right+alone)
	}
}

// values returns a policy without white space and comments, since a fix may insert a
// missing "{" after a comment.
func values(t *testing.T, d *schema.Document) string {
	text, err := schema.Pack(d)
	if err != nil {
		t.Fatalf("%q: %v", d, err)
	}
	return text
}
