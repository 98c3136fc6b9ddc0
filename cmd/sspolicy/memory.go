package main

import (
	"os"
	"runtime/debug"

	"github.com/secure-streams/sspolicy/schema"
)

// The memory that a command may use before it collects garbage: a base, and an
// amount for each byte of the policies. The tree of a policy and its views take 12
// to 16 bytes per byte of text; compiling also holds the tables and the output.
const (
	memoryBase      = 128 << 20
	memoryToCheck   = 19
	memoryToCompile = 45
)

// collectLate makes the garbage collector run less often, for a command that reads
// policies and ends. Such a command needs nearly all of its memory to the end, so
// each collection costs time and frees little. The limit, which makes the collector
// run as often as necessary, keeps the memory proportional to the text. Environment
// variables for the same settings take precedence.
func collectLate(perByte int64, files ...string) {
	var size int64
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			size += info.Size()
		} else {
			size += schema.MaxSize // standard input
		}
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(memoryBase, perByte*size))
	}
}
