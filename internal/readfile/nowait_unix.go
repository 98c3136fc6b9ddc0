//go:build unix

package readfile

import "syscall"

// noWait are the flags with which opening a file neither waits for the writer of a named
// pipe nor makes a terminal the controlling one. A regular file opens as without them, unless
// another process has a lease on it.
const noWait = syscall.O_NONBLOCK | syscall.O_NOCTTY
