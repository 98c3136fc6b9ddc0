package runtime

import (
	"context"
	"errors"
	goruntime "runtime"
	"testing"
)

type never struct{}

func (never) Protocols() []Protocol                            { return []Protocol{ProtocolRaw} }
func (never) Prepare(*Context, *StreamType) (Connector, error) { return never{}, nil }
func (never) Close() error                                     { return nil }
func (never) Run(ctx context.Context, l *Link) error           { return ctx.Err() }

// unreachable is a transport whose attempts fail.
type unreachable struct{ never }

func (unreachable) Prepare(*Context, *StreamType) (Connector, error) { return unreachable{}, nil }
func (unreachable) Run(context.Context, *Link) error                 { return errors.New("fake failure") }

// TestIdleStreams checks that a stream that does nothing costs next to nothing.
func TestIdleStreams(t *testing.T) {
	const n = 10_000
	c, err := NewContext(&Policy{StreamTypes: []*StreamType{{Name: "s", Protocol: ProtocolRaw, Endpoint: "h", Port: 1}}},
		Options{Transports: []Transport{never{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
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
