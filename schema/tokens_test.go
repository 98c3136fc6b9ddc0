package schema

import (
	"strings"
	"testing"
)

func TestTokenOffset(t *testing.T) {
	const text = "{ # a comment\n\"a\\\"b\": [1, true x]}\"open"
	want := []string{"{", "# a", `"a\"b"`, ":", "[", "1", ",", "true", "x", "]", "}", `"open`}
	for n, token := range want {
		if at := TokenOffset(text, n); at < 0 || !strings.HasPrefix(text[at:], token) {
			t.Errorf("token %d is at %d, want %q", n, at, token)
		}
	}
	if at := TokenOffset(text, len(want)); at != -1 {
		t.Errorf("token %d is at %d", len(want), at)
	}
	for _, text := range []string{"", " \n", `"\`, "#", `"`} {
		if n := len(strings.Fields(text)); (TokenOffset(text, 0) >= 0) != (n > 0) || TokenOffset(text, n) != -1 {
			t.Errorf("%q", text)
		}
	}
}
