package runtime

import (
	"context"
	"errors"
	goruntime "runtime"
	"testing"

	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

type never struct{}

func (never) Protocols() []policy.Protocol                          { return []policy.Protocol{policy.ProtocolRaw} }
func (never) Prepare(*transport.Setup) (transport.Connector, error) { return never{}, nil }
func (never) Close() error                                          { return nil }
func (never) Run(ctx context.Context, l transport.Link) error       { return ctx.Err() }

// unreachable is a transport whose attempts fail.
type unreachable struct{ never }

func (unreachable) Prepare(*transport.Setup) (transport.Connector, error) { return unreachable{}, nil }
func (unreachable) Run(context.Context, transport.Link) error             { return errors.New("fake failure") }

// TestIdleStreams checks that a stream that does nothing costs next to nothing.
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
	goruntime.GC() // empties what pools of earlier tests still hold
	goruntime.ReadMemStats(&before)
	for range n {
		if _, err := c.NewStream("s", Handlers{}); err != nil {
			t.Fatal(err)
		}
	}
	goruntime.GC()
	goruntime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("%d bytes for each idle stream", each)
	if each > 400 {
		t.Errorf("an idle stream takes %d bytes", each)
	}
	if more := goruntime.NumGoroutine() - goroutines; more > 0 {
		t.Errorf("%d idle streams hold %d goroutines", n, more)
	}
}
