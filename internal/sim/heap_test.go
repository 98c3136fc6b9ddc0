package sim

import (
	goruntime "runtime"
	"strings"
	"testing"
)

// module is the prefix of functions of the runtime.
const module = "github.com/secure-streams/sspolicy/"

// liveObjects returns the number of live objects allocated by or for the runtime, by
// function. The profile must contain every object.
func liveObjects() map[string]int64 {
	for range 3 { // pools keep objects for two collections
		goruntime.GC()
	}
	var records []goruntime.MemProfileRecord
	for n := 1 << 12; ; n *= 2 {
		records = make([]goruntime.MemProfileRecord, n)
		if k, ok := goruntime.MemProfile(records, false); ok {
			records = records[:k]
			break
		}
	}
	found := map[string]int64{}
	for _, r := range records {
		frames := goruntime.CallersFrames(r.Stack())
		for more := true; more; {
			var f goruntime.Frame
			f, more = frames.Next()
			name, ours := strings.CutPrefix(f.Function, module)
			switch {
			case !ours:
				continue
			case !strings.HasPrefix(name, "internal/") && !strings.HasSuffix(f.File, "_test.go"):
				found[name] += r.InUseObjects()
			}
			break
		}
	}
	return found
}

func total(counts map[string]int64) (n int64) {
	for _, k := range counts {
		n += k
	}
	return n
}

// TestHeap checks that the memory of the runtime does not grow with the number of events: a
// run with five times as many events has about as many live objects when the streams have
// settled, and after the end.
func TestHeap(t *testing.T) {
	before := goruntime.MemProfileRate
	goruntime.MemProfileRate = 1
	defer func() { goruntime.MemProfileRate = before }()
	for _, pr := range protocols {
		if strings.Contains(pr.name, "+tls") || strings.Contains(pr.name, "+shared") {
			continue
		}
		t.Run(pr.name, func(t *testing.T) {
			var settled, ended [2]map[string]int64
			for i, minutes := range []int{1, 5} {
				pr := *pr
				pr.onSettled = func() { settled[i] = liveObjects() }
				simulate(t, &pr, 1, minutes, nil)
				ended[i] = liveObjects()
			}
			if total(settled[0]) == 0 {
				t.Error("no object is attributed to the runtime")
			}
			for _, counts := range [][2]map[string]int64{settled, ended} {
				if grown := total(counts[1]) - total(counts[0]); grown > maxGrown {
					t.Errorf("%d objects more after five times as many events:\n%v\n%v", grown, counts[0], counts[1])
				}
			}
			t.Logf("%d and %d objects, %d and %d after the end", total(settled[0]), total(settled[1]), total(ended[0]), total(ended[1]))
		})
	}
}

// maxGrown exceeds the normal variation, which is up to 70: streams are in other states,
// and pools hold other objects. A leaked object for each state adds at least 300.
const maxGrown = 150
