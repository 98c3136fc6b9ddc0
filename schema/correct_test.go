package schema

import (
	"os"
	"strings"
	"testing"
)

// BenchmarkCorrect parses a policy with a mistake near its end that nothing
// explains.
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
