//go:build !unix

package readfile

// NoWait are the flags with which opening a file does not wait for other processes.
const NoWait = 0
