package smd

import (
	"sync"
	"time"
)

// maxWarnings is the maximum number of warnings that an SMD logs per second: the
// client of a proxy can cause one with each message.
const maxWarnings = 20

// A limiter limits warnings to maxWarnings per second.
type limiter struct {
	mu         sync.Mutex
	start      time.Time // of the current second
	n          int       // warnings in it
	suppressed int       // warnings since the last one that was logged
}

// allow reports whether a warning may be logged, and how many were suppressed before it.
func (l *limiter) allow(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.start) >= time.Second {
		l.start, l.n = now, 0
	}
	if l.n == maxWarnings {
		l.suppressed++
		return 0, false
	}
	l.n++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
