package runtime_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// TestSlowCallback checks that a slow callback does not delay the timers of other
// streams.
func TestSlowCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, hang)
		release := make(chan struct{})
		defer close(release)
		start := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		for i := range 100 {
			s, err := c.NewStream("s", runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				if state == runtime.StateTimeout {
					mu.Lock()
					at = append(at, time.Since(start))
					mu.Unlock()
					<-release
				}
				return runtime.OK
			}})
			if err != nil {
				t.Fatal(err)
			}
			s.StartTimeout(time.Duration(1 + i))
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(at) != 100 || at[99] != 100 {
			t.Errorf("timeouts at %v", at)
		}
	})
}

// TestTimeoutWithoutRetry checks that the end of a connection cancels the timer of an HTTP
// stream that does not retry, even if it is not opportunistic.
func TestTimeoutWithoutRetry(t *testing.T) {
	for conceal, want := range []string{"CRE CNG CON DIS UNR ARF", "CRE CNG CON DIS TMO POL CNG UNR ARF"} {
		synctest.Test(t, func(t *testing.T) {
			st := policy.StreamType{Protocol: policy.ProtocolH1, HTTP: &policy.HTTP{Method: "GET"}, Retry: teststream.Retry(uint16(conceal))}
			c := newContext(t, st, each(loseAfter(time.Millisecond), unreachable))
			var tr teststream.Trace
			s, err := c.NewStream("s", runtime.Handlers{State: tr.State})
			if err != nil {
				t.Fatal(err)
			}
			s.StartTimeout(3 * time.Millisecond)
			s.Connect()
			time.Sleep(time.Second)
			tr.Want(t, want)
		})
	}
}
