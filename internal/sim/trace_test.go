package sim

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A trace is a record of a run.
type trace struct {
	start time.Time

	mu     sync.Mutex
	lines  []traceLine
	states int
}

type traceLine struct {
	at        time.Duration
	who, what string
}

func (l traceLine) String() string { return fmt.Sprintf("%-15v %-8s %s", l.at, l.who, l.what) }

// note records an event of a stream, host or the world.
func (tr *trace) note(who, format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = append(tr.lines, traceLine{time.Since(tr.start), who, fmt.Sprintf(format, args...)})
}

// sum returns a hash of the trace. Lines of one instant are sorted, since streams run in
// parallel. Pieces of payload are omitted, since their sizes may depend on the scheduler.
func (tr *trace) sum() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	h := sha256.New()
	for _, l := range tr.comparedLocked() {
		io.WriteString(h, l.String()+"\n")
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// comparedLocked returns the lines that sum hashes.
func (tr *trace) comparedLocked() []traceLine {
	return slices.DeleteFunc(tr.sortedLocked(), func(l traceLine) bool {
		return strings.HasPrefix(l.what, "rx ") || strings.HasPrefix(l.what, "tx ")
	})
}

func (tr *trace) sortedLocked() []traceLine {
	sorted := slices.Clone(tr.lines)
	slices.SortFunc(sorted, func(a, b traceLine) int {
		return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.who, b.who), strings.Compare(a.what, b.what))
	})
	return sorted
}

// String returns the events in the order of sum.
func (tr *trace) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return lines(tr.sortedLocked())
}

func lines(list []traceLine) string {
	var b strings.Builder
	for _, l := range list {
		fmt.Fprintln(&b, l)
	}
	return b.String()
}

// tail returns the last n events that concern one of the names.
func (tr *trace) tail(n int, names ...string) string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var found []string
	for _, l := range slices.Backward(tr.lines) {
		if len(found) < n && slices.Contains(names, l.who) {
			found = append(found, l.String())
		}
	}
	slices.Reverse(found)
	return strings.Join(found, "\n")
}
