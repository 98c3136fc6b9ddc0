package runtime_test

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/sink"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestConcurrentUse calls all methods of a context and its streams concurrently, also in
// callbacks, while the context shuts down, for the race detector.
func TestConcurrentUse(t *testing.T) {
	policies := []*policy.Policy{
		sinkPolicy(), sinkPolicy(change("a", func(st *policy.StreamType) { st.Port = 2 })),
		sinkPolicy(change("b", func(st *policy.StreamType) { st.Endpoint = "other.example" })),
	}
	for range 20 {
		sinks, messages := sink.New(), smd.New(nil)
		c := teststream.NewPolicyContext(t, runtime.Options{
			Transports: []transport.Transport{&fake{run: each(stay, lose, unreachable, fetch, stay, hang)}, sinks, messages},
			Wake:       func(time.Time) {},
			Logger:     slog.New(slog.DiscardHandler), // Resumed makes the context abandon transports
		}, policies[0])
		var calls atomic.Int64
		enough, last := make(chan struct{}), 1+rand.Int64N(500)
		do := func() {
			if calls.Add(1) == last {
				close(enough)
			}
			switch rand.N(8) {
			case 0:
				c.SetPolicy(policies[rand.N(len(policies))])
			case 1:
				c.Overlay(policies[rand.N(len(policies))])
			case 2:
				if k, err := sinks.Accept(c, "sink", func(uint32) (runtime.Handlers, runtime.Result) { return runtime.Handlers{}, runtime.OK }); err == nil {
					k.Close()
				}
			case 3:
				messages.Send(smd.ClassUser, []byte("x"))
			case 4:
				c.Policy().Chain(c.Policy().StreamTypes[0])
			case 5:
				messages.Register(smd.ClassesAll, func(smd.Message) { goruntime.Gosched() }).Close()
			case 6:
				c.Resumed(time.Second)
			}
		}
		sinks.Accept(c, "sink", func(uint32) (runtime.Handlers, runtime.Result) {
			do()
			return runtime.Handlers{
				Rx: func(s *runtime.Stream, _ []byte, _ runtime.Flags) runtime.Result {
					do()
					s.RequestTx()
					return runtime.OK
				},
				Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
					return 1, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
				},
			}, runtime.OK
		})
		handlers := runtime.Handlers{
			State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				do()
				if state == runtime.StateCreating {
					s.StartTimeout(time.Duration(rand.N(1000)) * time.Microsecond)
					s.RequestTx()
				}
				switch rand.N(6) {
				case 0:
					return runtime.DisconnectMe
				case 1:
					return runtime.DestroyMe
				}
				return runtime.OK
			},
			Rx: func(s *runtime.Stream, _ []byte, _ runtime.Flags) runtime.Result { do(); return runtime.OK },
			Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
				do()
				return min(20, len(buf)), runtime.FlagSOM | runtime.FlagEOM, runtime.OK
			},
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				var streams []*runtime.Stream
				for range 60 {
					name := []string{"a", "b", "c", "sink", smd.StreamType}[rand.N(5)]
					var options []runtime.StreamOption
					if name == smd.StreamType {
						options = append(options, smd.WithClasses(smd.ClassesAll))
					}
					if s, err := c.NewStream(name, handlers, options...); err == nil {
						streams = append(streams, s)
					}
					do()
					if len(streams) > 0 {
						s := streams[rand.N(len(streams))]
						switch rand.N(6) {
						case 0:
							s.Destroy()
						case 1:
							s.Connect()
						case 2:
							s.RequestTx()
						case 3:
							s.CancelTimeout()
						case 4:
							s.SetMetadata("x", "1")
						case 5:
							_ = s.String() + s.State().String() + s.StreamType().Name + s.Rideshare().Name
						}
					}
				}
			})
		}
		wg.Go(func() { <-enough; teststream.Shutdown(t, c) })
		wg.Wait()
		if _, err := c.NewStream("a", handlers); !errors.Is(err, runtime.ErrClosed) {
			t.Errorf("NewStream after Close: %v", err)
		}
		messages.Close()
		for call, err := range map[string]error{"SetPolicy": c.SetPolicy(policies[0]), "Overlay": c.Overlay(policies[0]),
			"Send": messages.Send(smd.ClassUser, nil)} {
			if !errors.Is(err, runtime.ErrClosed) {
				t.Errorf("%s after Close: %v", call, err)
			}
		}
		messages.Register(smd.ClassesAll, func(smd.Message) {}).Close()
		c.Resumed(time.Second)
	}
}

// sinkPolicy is swapPolicy with a streamtype that is a local_sink.
func sinkPolicy(f ...func(*policy.Policy)) *policy.Policy {
	return swapPolicy(append(f, func(p *policy.Policy) {
		p.StreamTypes = append(p.StreamTypes, &policy.StreamType{Name: "sink", Protocol: policy.ProtocolRaw, LocalSink: true})
	})...)
}
