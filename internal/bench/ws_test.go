package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	ssws "github.com/secure-streams/sspolicy/runtime/ws"
)

// echoWS echoes messages.
func echoWS(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	var buf bytes.Buffer
	for {
		kind, r, err := c.Reader(context.Background())
		if err != nil {
			return
		}
		buf.Reset()
		if _, err := buf.ReadFrom(r); err != nil || c.Write(context.Background(), kind, buf.Bytes()) != nil {
			return
		}
	}
}

// BenchmarkWS sends messages and waits for their echoes, by one stream and by 16
// concurrently, compared with the library by hand. An operation is a message.
func BenchmarkWS(b *testing.B) {
	addr := netip.MustParseAddrPort(startServers(b).WS)
	for _, size := range []int{64, 4 << 10, 1 << 20} {
		for _, streams := range []int{1, 16} {
			b.Run(fmt.Sprintf("%d/streams=%d", size, streams), func(b *testing.B) {
				against(b, "bare", streams, policyWS(b, addr, size, streams), bareWS(b, addr, size, streams))
			})
		}
	}
}

// policyWS returns a function that exchanges echoes with each stream.
func policyWS(b *testing.B, addr netip.AddrPort, size, streams int) (run func(each int)) {
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolWS, Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{WSBinary: true}}
	c := newContext(b, ssws.New(), st)
	var wg sync.WaitGroup
	msg := make([]byte, size)
	all := make([]*runtime.Stream, streams)
	left := make([]atomic.Int32, streams)
	for i := range streams {
		sent := 0
		s, err := c.NewStream("s", runtime.Handlers{
			State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
				if state == runtime.StateDisconnected && left[i].Load() > 0 || state == runtime.StateUnreachable {
					b.Error(s.Err())
				}
				return runtime.OK
			},
			Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
				n := copy(buf, msg[sent:])
				var f runtime.Flags
				if sent == 0 {
					f |= runtime.FlagSOM
				}
				if sent += n; sent == size {
					f |= runtime.FlagEOM
					sent = 0
				}
				return n, f, runtime.OK
			},
			Rx: func(s *runtime.Stream, _ []byte, f runtime.Flags) runtime.Result {
				if f&runtime.FlagEOM != 0 {
					if left[i].Add(-1) > 0 {
						s.RequestTx()
					} else {
						wg.Done()
					}
				}
				return runtime.OK
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		all[i] = s
	}
	return func(each int) {
		wg.Add(streams)
		for i, s := range all {
			left[i].Store(int32(each))
			s.RequestTx()
		}
		wg.Wait()
	}
}

// dialWS connects by hand.
func dialWS(b *testing.B, addr netip.AddrPort) *websocket.Conn {
	c, _, err := websocket.Dial(context.Background(), "ws://"+addr.String()+"/", nil)
	if err != nil {
		b.Fatal(err)
	}
	c.SetReadLimit(-1)
	return c
}

// bareWS returns the same with the library by hand.
func bareWS(b *testing.B, addr netip.AddrPort, size, streams int) (run func(each int)) {
	all := make([]*websocket.Conn, streams)
	for i := range all {
		all[i] = dialWS(b, addr)
		b.Cleanup(func() { all[i].CloseNow() })
	}
	msg := make([]byte, size)
	bufs := make([][]byte, streams)
	for i := range bufs {
		bufs[i] = make([]byte, 16<<10)
	}
	return func(each int) {
		var wg sync.WaitGroup
		for i, c := range all {
			wg.Go(func() {
				for range each {
					if err := c.Write(context.Background(), websocket.MessageBinary, msg); err != nil {
						b.Error(err)
						return
					}
					_, r, err := c.Reader(context.Background())
					for err == nil {
						_, err = r.Read(bufs[i])
					}
					if !errors.Is(err, io.EOF) {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// BenchmarkIdleWS makes 10,000 connected streams, and as many connections by hand, and
// reports the bytes and goroutines of each.
func BenchmarkIdleWS(b *testing.B) {
	const n = 10_000
	needFiles(b, n+1000)
	addr := netip.MustParseAddrPort(startServers(b).WS)
	held := func(b *testing.B, hold func() (release func())) {
		var bytes, stacks, goroutines float64
		for b.Loop() {
			var before, after goruntime.MemStats
			idle := goruntime.NumGoroutine()
			collect(&before)
			release := hold()
			time.Sleep(100 * time.Millisecond) // until goroutines have ended
			collect(&after)
			bytes = float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)+int64(after.StackInuse)-int64(before.StackInuse)) / n
			stacks = float64(int64(after.StackInuse)-int64(before.StackInuse)) / n
			goroutines = float64(goruntime.NumGoroutine()-idle) / n
			release()
		}
		b.ReportMetric(bytes, "B/stream")
		b.ReportMetric(stacks, "stack-B/stream")
		b.ReportMetric(goroutines, "goroutines/stream")
	}
	b.Run("streams", func(b *testing.B) {
		held(b, func() func() {
			st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolWS, Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{}}
			c := newContext(b, ssws.New(), st)
			more := make(chan struct{}, 100) // limits concurrent attempts
			for range cap(more) {
				more <- struct{}{}
			}
			for range n {
				<-more
				s, err := c.NewStream("s", runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
					switch state {
					case runtime.StateUnreachable:
						b.Error(s.Err())
						more <- struct{}{}
					case runtime.StateConnected:
						more <- struct{}{}
					}
					return runtime.OK
				}})
				if err != nil {
					b.Fatal(err)
				}
				s.Connect()
			}
			for range cap(more) {
				<-more
			}
			return func() { teststream.Shutdown(b, c) }
		})
	})
	b.Run("by hand", func(b *testing.B) {
		held(b, func() func() {
			all := make([]*websocket.Conn, n)
			var wg sync.WaitGroup
			for i := range all {
				all[i] = dialWS(b, addr)
				wg.Go(func() { all[i].Reader(context.Background()) }) // an idle client must read
			}
			return func() {
				for _, c := range all {
					c.CloseNow()
				}
				wg.Wait()
			}
		})
	})
}
