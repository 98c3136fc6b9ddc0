//go:build emacs

package main

import "testing"

// TestEmacs checks that with eglot a mistake is marked, a key completed, explained
// and fixed, a trust store renamed. It needs Emacs, and eglot, which Emacs has
// since 29.
func TestEmacs(t *testing.T) {
	edit(t, `diagnostic: sspolicy [out-of-range]: port must be 0 to 65535, not 70443; lws keeps 4907
completion: timeout_ms
hover: Protocol of the connection. The default is h1.
renamed
action: Write opportunistic
fixed
`, "emacs", "--batch", "-l", "emacs.el")
}
