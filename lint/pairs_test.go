package lint_test

import (
	"maps"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/lint/rules"
	"github.com/secure-streams/sspolicy/schema"
)

// TestTwoDeletions deletes two characters of a policy at a time. If fixes change the text,
// they restore the policy or at least one of the two characters.
func TestTwoDeletions(t *testing.T) {
	const tries = 300
	least := map[string]int{"../fixtures/weather.json": 100, "../fixtures/station.json": 100} // minimum numbers of correct repairs
	random := rand.New(rand.NewSource(1))
	for _, file := range slices.Sorted(maps.Keys(least)) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var places []int
		for i := range text {
			if strings.IndexByte("\",:{}[]", text[i]) >= 0 {
				places = append(places, i)
			}
		}
		original := schema.Parse("p", text)
		want := squeeze(string(text))
		right, half, alone := 0, 0, 0
		for range tries {
			i, j := places[random.Intn(len(places))], places[random.Intn(len(places))]
			if i >= j {
				continue
			}
			broken := schema.Parse("p", []byte(string(text[:i])+string(text[i+1:j])+string(text[j+1:])))
			if !schema.HasErrors(broken.Syntax) {
				continue
			}
			fixed, applied := lint.Fix(broken, rules.All(), lint.Options{})
			got := squeeze(fixed.Source.Text)
			switch {
			case len(applied) == 0:
				alone++
			case got == want:
				right++
			case got == squeeze(string(text[:i])+string(text[i+1:])) || got == squeeze(string(text[:j])+string(text[j+1:])):
				half++
			default:
				t.Errorf("without the %q at %v and the %q at %v the fix makes it worse: %v",
					text[i], original.Source.Position(i), text[j], original.Source.Position(j), applied)
			}
		}
		t.Logf("%s: %d repaired, %d partly, %d unchanged", file, right, half, alone)
		if right < least[file] {
			t.Errorf("%s: only %d are repaired", file, right)
		}
	}
}

// squeeze removes white space.
func squeeze(text string) string { return strings.Join(strings.Fields(text), "") }
