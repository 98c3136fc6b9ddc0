//go:build !unix

package readfile

// noWait are the flags with which opening a file does not wait for other processes.
const noWait = 0
