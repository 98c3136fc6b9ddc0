package bench

import (
	"context"
	"os"
	goruntime "runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/secure-streams/sspolicy/codegen"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/schema"
)

// BenchmarkIdleStreams makes 100,000 streams, and reports the bytes and goroutines per
// idle stream.
func BenchmarkIdleStreams(b *testing.B) {
	s := startServers(b)
	for _, k := range []struct {
		name string
		n    int
		use  func(*testing.B, []*runtime.Stream)
	}{
		{"new", 100_000, func(*testing.B, []*runtime.Stream) {}},
		{"with metadata", 100_000, func(b *testing.B, all []*runtime.Stream) {
			for _, s := range all {
				if err := s.SetMetadata("a", "a value of its own"); err != nil {
					b.Fatal(err)
				}
			}
		}},
		{"after a request", 100_000, func(b *testing.B, all []*runtime.Stream) {
			more := make(chan struct{}, 100) // limits concurrent requests
			for range cap(more) {
				more <- struct{}{}
			}
			h := runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				switch state {
				case runtime.StateDisconnected:
					more <- struct{}{}
				case runtime.StateUnreachable:
					b.Error(s.Err())
					more <- struct{}{}
				}
				return runtime.OK
			}}
			for _, s := range all {
				<-more
				s.SetHandlers(h)
				s.RequestTx()
			}
			for range cap(more) {
				<-more
			}
		}},
	} {
		b.Run(k.name, func(b *testing.B) {
			var bytes, goroutines float64
			for b.Loop() {
				c := newContext(b, sshttp.New(), &policy.StreamType{Name: "s", Opportunistic: true,
					Endpoint: "http://" + s.Plain + "/", Metadata: []policy.Metadata{{Name: "a", Header: "x-a:"}}, HTTP: &policy.HTTP{}})
				all := make([]*runtime.Stream, k.n)
				var before, after goruntime.MemStats
				idle := goruntime.NumGoroutine()
				collect(&before)
				for i := range all {
					var err error
					if all[i], err = c.NewStream("s", runtime.Handlers{}); err != nil {
						b.Fatal(err)
					}
				}
				k.use(b, all)
				for limit := time.Now().Add(5 * time.Second); goruntime.NumGoroutine() > idle+300 && time.Now().Before(limit); {
					time.Sleep(time.Millisecond)
				}
				collect(&after)
				bytes = float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)+int64(after.StackInuse)-int64(before.StackInuse)) / float64(k.n)
				goroutines = float64(goruntime.NumGoroutine()-idle) / float64(k.n)
				teststream.Shutdown(b, c)
				goruntime.KeepAlive(all)
			}
			b.ReportMetric(bytes, "B/stream")
			b.ReportMetric(goroutines, "goroutines/stream")
			b.ReportMetric(float64(unsafe.Sizeof(runtime.Stream{})), "B/struct")
		})
	}
}

// collect collects garbage and reads the statistics.
func collect(m *goruntime.MemStats) {
	goruntime.GC()
	goruntime.GC() // empties pools
	goruntime.ReadMemStats(m)
}

const (
	policyFile = "../../fixtures/weather.json"
	streamType = "get_weather"
)

// compile compiles the text of policyFile.
func compile(b *testing.B, text []byte) *policy.Policy {
	d := schema.Parse(policyFile, text)
	p, diagnostics := codegen.Compile(schema.NewPolicy(d))
	if schema.HasErrors(d.Syntax) || schema.HasErrors(diagnostics) {
		b.Fatal(diagnostics)
	}
	return p
}

// BenchmarkFirstStream makes the first stream of a policy, which is compiled into the
// program or read as JSON.
func BenchmarkFirstStream(b *testing.B) {
	text, err := os.ReadFile(policyFile)
	if err != nil {
		b.Fatal(err)
	}
	compiled := compile(b, text)
	first := func(b *testing.B, p *policy.Policy) {
		c, err := runtime.NewContext(p, runtime.Options{Transports: []transport.Transport{sshttp.New()}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.NewStream(streamType, runtime.Handlers{}); err != nil {
			b.Fatal(err)
		}
		c.Shutdown(context.Background())
	}
	b.Run("compiled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			first(b, compiled)
		}
	})
	b.Run("JSON", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			first(b, compile(b, text))
		}
	})
	b.Run("compiled, policy alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if compiled.StreamType(streamType) == nil {
				b.Fatal("the streamtype is missing")
			}
		}
	})
	b.Run("JSON, policy alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			compile(b, text)
		}
	})
}

// TestStreamTypeAllocations checks that finding a streamtype does not allocate.
func TestStreamTypeAllocations(t *testing.T) {
	p := &policy.Policy{StreamTypes: []*policy.StreamType{{Name: "a"}, {Name: "b"}}}
	if n := testing.AllocsPerRun(100, func() { p.StreamType("b") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
