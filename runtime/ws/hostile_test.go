package ws_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	goruntime "runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// TestHostile floods a stream, and checks that the flood ends the connection, or reaches
// the program in bounded memory; that nothing is logged; and that another stream of the
// context works meanwhile.
func TestHostile(t *testing.T) {
	const (
		most   = 16 << 20 // bytes of memory
		enough = 64 << 20 // bytes of payload, where a small piece counts as 1 KB
	)
	good := serveWS(t, nil, echo)
	for _, tt := range []struct {
		name, start, repeat string
		deaf                bool // the server reads nothing
		code                int  // of the close frame; 0 means that there is none
	}{
		{name: "pings", repeat: "\x89\x7d" + strings.Repeat("x", 125), code: 1008},
		{name: "pings of a server that reads nothing", repeat: "\x89\x7d" + strings.Repeat("x", 125), deaf: true, code: 1008},
		{name: "pongs", repeat: "\x8a\x00", code: 1008},
		{name: "empty fragments", start: "\x02\x00", repeat: "\x00\x00", code: 1008},
		{name: "pings in a message", start: "\x02\x01x", repeat: "\x89\x00", code: 1008},
		{name: "endless fragments", start: "\x02\x00", repeat: "\x00\x7e\x10\x00" + strings.Repeat("x", 4096)},
		{name: "endless message", start: "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", repeat: strings.Repeat("x", 4096)},
		{name: "endless text", start: "\x01\x00", repeat: "\x00\x02\xce\xba"},
		{name: "small messages", repeat: "\x82\x01x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := testserver.ServeTCP(t, func(c net.Conn) {
				r, _, err := upgrade(c, "", tt.start)
				if err == nil && !tt.deaf {
					go func() {
						io.Copy(io.Discard, r)
						c.Close()
					}()
				}
				for block := bytes.Repeat([]byte(tt.repeat), 1+(64<<10)/len(tt.repeat)); err == nil; {
					_, err = c.Write(block)
				}
			})
			st := func(name string, port uint16) *policy.StreamType {
				return &policy.StreamType{Name: name, Protocol: policy.ProtocolWS, Endpoint: "127.0.0.1", Port: port, Opportunistic: true, HTTP: &policy.HTTP{}}
			}
			c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{ws.New()}, Logger: teststream.Logger(t), ConnectTimeout: time.Minute},
				st("bad", bad.Port()), st("good", good.Port()))
			var got atomic.Int64
			end := make(chan error, 1)
			before := heap()
			s, err := c.NewStream("bad", runtime.Handlers{
				Rx: func(s *runtime.Stream, p []byte, _ policy.Flags) policy.Result {
					got.Add(int64(max(len(p), 1<<10)))
					return policy.OK
				},
				State: func(s *runtime.Stream, state runtime.State, _ uint32) policy.Result {
					if state == runtime.StateDisconnected || state == runtime.StateAllRetriesFailed {
						end <- s.Err()
					}
					return policy.OK
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			s.RequestTx()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			for done := false; !done; {
				if r, err := c.Fetch(ctx, "good", runtime.WithBody([]byte("hello"))); err != nil || string(r.Body) != "hello" {
					t.Fatal("the good stream:", err)
				}
				if more := heap() - before; more > most {
					t.Fatalf("%d bytes of memory", more)
				}
				select {
				case err := <-end:
					done = true
					var e *ws.ProtocolError
					if !errors.As(err, &e) || e.Code != tt.code {
						t.Error("the flood ended with", err)
					}
				default:
					done = tt.code == 0 && got.Load() > enough
				}
			}
		})
	}
}

// heap returns the bytes that the program holds. It does not count garbage, whose amount
// depends on the scheduler.
func heap() int64 {
	held := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	goruntime.GC()
	metrics.Read(held)
	return int64(held[0].Value.Uint64() + held[1].Value.Uint64())
}
