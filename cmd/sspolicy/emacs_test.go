//go:build emacs

package main

import "testing"

// TestEmacs checks that Emacs with eglot marks a mistake, completes, explains and fixes a
// key, and renames a trust store. It needs Emacs 29, or eglot.
func TestEmacs(t *testing.T) {
	edit(t, `diagnostic: sspolicy [out-of-range]: port must be 0 to 65535, not 70443; lws keeps 4907
completion: timeout_ms
hover: Protocol of the connection. The default is h1.
renamed
action: Write opportunistic
fixed
`, "emacs", "--batch", "-l", "emacs.el")
}
