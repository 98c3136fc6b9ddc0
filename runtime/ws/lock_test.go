package ws

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestLock checks that one goroutine at a time has a lock, that the clock of a bubble runs
// while others wait, and TryLock.
func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var l lock
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				l.Lock()
				time.Sleep(time.Second)
				l.Unlock()
			})
		}
		synctest.Wait()
		if l.TryLock() {
			t.Error("TryLock of a lock that is held")
		}
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		if !l.TryLock() {
			t.Error("TryLock failed")
		}
	})
}
