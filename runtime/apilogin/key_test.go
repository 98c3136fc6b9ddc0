package apilogin

import (
	"crypto/rand"
	"math"
	"math/bits"
	mathrand "math/rand/v2"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestKeyTellsNothing checks that passwords with a common prefix have unrelated keys. The
// time of a lookup depends only on keys, so it does not reveal how much of a password is
// right.
func TestKeyTellsNothing(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	right := l.key(r, "ann", "correct horse battery")
	for _, password := range []string{"", "c", "correct", "correct horse batter", "correct horse batterx", "xorrect horse battery", "correct horse battery "} {
		wrong := l.key(r, "ann", password)
		equal := 0
		for i := range wrong {
			equal += 8 - bits.OnesCount8(wrong[i]^right[i])
		}
		if equal < 80 || equal > 176 { // of 256 random bits: six standard deviations
			t.Errorf("%q: %d bits are equal", password, equal)
		}
	}
	if l.key(r, "ann", "correct horse battery") != right {
		t.Error("the key changes")
	}
}

// TestKeyTiming compares the times of lookups with a password that is nearly right and with
// one that is not, for the time in TIMING, which make soak sets.
func TestKeyTiming(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("TIMING"))
	if err != nil {
		limit = 0
	}
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	l.sessions.put(t.Context(), l.key(r, "ann", strings.Repeat("a", 64)), "ann", "sid")
	var differences []float64 // between medians of blocks, since the load of a machine varies
	end := time.Now().Add(limit)
	for len(differences) < 2 || time.Now().Before(end) {
		var took [2][]time.Duration
		for range 2000 {
			// Use a new password each time, since the position of a key in the table
			// affects the time slightly, and create all in the same way, since caches
			// affect it too.
			prefix, class := strings.Repeat("a", 38), mathrand.IntN(2)
			if class == 1 {
				prefix = strings.Repeat("b", 38)
			}
			wrong := prefix + rand.Text()
			start := time.Now()
			cookie := l.sessions.get(t.Context(), l.key(r, "ann", wrong))
			took[class] = append(took[class], time.Since(start))
			if cookie != "" {
				t.Fatal("a wrong password has a session")
			}
		}
		slices.Sort(took[0])
		slices.Sort(took[1])
		differences = append(differences, float64(took[0][len(took[0])/2]-took[1][len(took[1])/2]))
	}
	var mean, variance float64
	n := float64(len(differences))
	for _, d := range differences {
		mean += d / n
	}
	for _, d := range differences {
		variance += (d - mean) * (d - mean) / (n - 1)
	}
	limits := 5 * math.Sqrt(variance/n) // five standard errors
	t.Logf("%d blocks: a difference of %.2f ns, within %.2f", len(differences), mean, limits)
	if limit > 0 && math.Abs(mean) > max(limits, 3) { // an HMAC varies by far more than 3 ns
		t.Error("the times differ")
	}
}
