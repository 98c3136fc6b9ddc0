package codegen

import (
	"strings"
	"testing"
)

// FuzzCommentText checks that text in a comment can neither end it nor form a trigraph, and
// that escaping is idempotent.
func FuzzCommentText(f *testing.F) {
	for _, s := range []string{`*\`, `\*`, "/*/", "*/*", "???/", `*\\`, "a\nb", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := commentText(s)
		for _, bad := range []string{"*/", "/*", "??", "\\", "\n", "\r"} {
			if strings.Contains(got, bad) {
				t.Errorf("%q becomes %q, with %q", s, got, bad)
			}
		}
		if again := commentText(got); again != got {
			t.Errorf("%q becomes %q, and that %q", s, got, again)
		}
	})
}
