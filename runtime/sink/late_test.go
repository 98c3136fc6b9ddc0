package sink_test

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/sink"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// TestSlowConnected checks a source that is closed while its CONNECTED callback exceeds the
// time limit of a transport.
func TestSlowConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sinks := sink.New()
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sinks}, Logger: slog.New(slog.DiscardHandler)},
			&policy.StreamType{Name: "s", LocalSink: true})
		sinks.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
			return runtime.Handlers{State: func(*runtime.Stream, runtime.State, uint32) runtime.Result { return runtime.OK }}, runtime.OK
		})
		time.AfterFunc(time.Second, func() { c.Close() })
		c.NewStream("s", runtime.Handlers{State: func(_ *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateConnected {
				time.Sleep(7 * time.Second)
			}
			return runtime.OK
		}})
		teststream.Shutdown(t, c)
	})
}

// TestSlowReceiver checks that the late end of an attempt does not affect the next.
func TestSlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sinks := sink.New()
		c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sinks}, Logger: slog.New(slog.DiscardHandler)},
			&policy.StreamType{Name: "s", LocalSink: true})
		sinks.Accept(c, "s", func(uint32) (runtime.Handlers, runtime.Result) {
			return runtime.Handlers{
				Tx: func(*runtime.Stream, uint32, []byte) (int, runtime.Flags, runtime.Result) {
					return 1, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
				},
				State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
					if state == runtime.StateConnected {
						s.RequestTx()
					}
					return runtime.OK
				},
			}, runtime.OK
		})
		s := teststream.Must(c.NewStream("s", runtime.Handlers{Rx: func(*runtime.Stream, []byte, runtime.Flags) runtime.Result {
			time.Sleep(6 * time.Second)
			return runtime.OK
		}}))
		time.Sleep(time.Second / 10)
		s.Destroy()
		time.Sleep(time.Minute)
	})
}
