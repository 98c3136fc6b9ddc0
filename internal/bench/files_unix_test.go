//go:build unix

package bench

import (
	"syscall"
	"testing"
	"time"
)

// needFiles fails the benchmark if the process may open fewer than n files.
func needFiles(b *testing.B, n int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	if int(limit.Cur) < n {
		b.Fatalf("needs %d open files: ulimit -n is %d", n, limit.Cur)
	}
}

// cpuTime returns the CPU time of the process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
