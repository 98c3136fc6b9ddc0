package http

import (
	"testing"
	"testing/synctest"

	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A stuckPool is a pool whose Close returns only after it is closed.
type stuckPool struct {
	RoundTripper
	released chan struct{}
}

func (p stuckPool) Close() error {
	<-p.released
	return nil
}

// TestReleaseStuck checks that a pool whose Close does not return blocks only the streamtype
// that has used it.
func TestReleaseStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New()
		host := transport.NewHost(transport.Config{})
		defer host.Release()
		k := poolKey{env: host.Env}
		stuck := stuckPool{released: make(chan struct{})}
		p := &pool{RoundTripper: stuck, users: 1}
		tr.pools[k] = p
		go tr.release(k, p)
		synctest.Wait()
		if !tr.mu.TryLock() {
			t.Error("the pools are locked")
		} else {
			tr.mu.Unlock()
		}
		close(stuck.released)
	})
}
