package schema

import (
	"os"
	"strings"
	"testing"
)

// BenchmarkCorrect parses a policy with an unexplained mistake near its end.
func BenchmarkCorrect(b *testing.B) {
	text, err := os.ReadFile("../fixtures/station.json")
	if err != nil {
		b.Fatal(err)
	}
	broken := []byte(strings.Replace(string(text), `"port": 7681`, `"port": 76 @ 81`, 1))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Parse("p", broken)
	}
}

// TestCorrectLong checks that a bracket that may be missing in very many places is not
// guessed, and that the parser's own fix, which would remove its counterpart, is not
// offered.
func TestCorrectLong(t *testing.T) {
	items := strings.TrimSuffix(strings.Repeat(`{"m":""},`, 300), ",")
	text := `{"s":{"a":{"endpoint":"x.org","port":80,"metadata":[` + items + `]}}]}`
	for _, g := range Parse("f", []byte(text)).Syntax {
		if len(g.Fixes) > 0 {
			t.Errorf("%s: %v", g.Message, g.Fixes)
		}
	}
}
