//go:build unix

package readfile

import "syscall"

// NoWait are the flags with which opening a file neither waits for the writer of a named
// pipe nor makes a terminal the controlling one. They do not affect a regular file.
const NoWait = syscall.O_NONBLOCK | syscall.O_NOCTTY
