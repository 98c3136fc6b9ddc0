package runtime

import (
	"context"
	goruntime "runtime"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A never is a transport that never connects.
type never struct{}

func (never) Protocols() []policy.Protocol                          { return []policy.Protocol{policy.ProtocolRaw} }
func (never) Prepare(*transport.Setup) (transport.Connector, error) { return never{}, nil }
func (never) Close() error                                          { return nil }
func (never) Run(ctx context.Context, l transport.Link) error       { return ctx.Err() }

// TestIdleStreams checks that an idle stream takes at most 300 bytes and no goroutine.
func TestIdleStreams(t *testing.T) {
	const n = 10_000
	c, err := NewContext(&policy.Policy{StreamTypes: []*policy.StreamType{{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: "h", Port: 1}}},
		Options{Transports: []transport.Transport{never{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(context.Background())
	var before, after goruntime.MemStats
	goroutines := goruntime.NumGoroutine()
	goruntime.GC()
	goruntime.GC() // empties pools of earlier tests
	goruntime.ReadMemStats(&before)
	for range n {
		if _, err := c.NewStream("s", Handlers{}); err != nil {
			t.Fatal(err)
		}
	}
	goruntime.GC()
	goruntime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("%d bytes per idle stream", each)
	if each > 300 {
		t.Errorf("an idle stream takes %d bytes", each)
	}
	if more := goruntime.NumGoroutine() - goroutines; more > 0 {
		t.Errorf("%d idle streams hold %d goroutines", n, more)
	}
}
