package bench

import (
	"io"
	"net"
	"net/netip"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
)

// megabyte is the size of a large message.
const megabyte = 1 << 20

// serveRaw serves connections by their first byte: 'e' echoes, 'r' answers each byte with
// a megabyte, 's' answers each megabyte with a byte.
func serveRaw(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			kind := make([]byte, 1)
			if _, err := io.ReadFull(c, kind); err != nil {
				return
			}
			size := megabyte
			if kind[0] == 'e' {
				size = 64 << 10
			}
			buf := make([]byte, size)
			for {
				switch kind[0] {
				case 'e':
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:n])
				case 'r':
					if _, err := c.Read(buf[:1]); err != nil {
						return
					}
					c.Write(buf)
				default:
					if _, err := io.ReadFull(c, buf); err != nil {
						return
					}
					c.Write(kind)
				}
			}
		}()
	}
}

// BenchmarkRaw exchanges echoes, and megabytes either way, by one stream. net.Conn-ns/op
// is the same by hand with a net.Conn and buffers of 64 KB, in turns; x/net.Conn is the
// throughput relative to that.
func BenchmarkRaw(b *testing.B) {
	s := startServers(b)
	addr := netip.MustParseAddrPort(s.Raw)
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Opportunistic: true, Endpoint: addr.Addr().String(), Port: addr.Port()}
	for _, k := range []struct {
		name           string
		kind           byte
		send, received int // bytes of an operation
	}{
		{"echo 64 B", 'e', 64, 64}, {"echo 4 KB", 'e', 4 << 10, 4 << 10}, {"echo 64 KB", 'e', 64 << 10, 64 << 10},
		{"receive 1 MB", 'r', 1, megabyte}, {"send 1 MB", 's', megabyte, 1},
	} {
		b.Run(k.name, func(b *testing.B) {
			against(b, "net.Conn", 1, rawStream(b, st, k.kind, k.send, k.received), rawByHand(b, s.Raw, k.kind, k.send, k.received))
		})
	}
}

// rawStream returns a function that makes operations with a stream.
func rawStream(b *testing.B, st *policy.StreamType, kind byte, send, receive int) (run func(each int)) {
	c := newContext(b, raw.New(), st)
	ready, done := make(chan struct{}, 1), make(chan struct{}, 1)
	started := false
	var left, toSend, toReceive int
	data := make([]byte, send)
	s, err := c.NewStream(st.Name, runtime.Handlers{
		State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
			if state == runtime.StateUnreachable || state == runtime.StateDisconnected {
				b.Error(s.Err())
			}
			return runtime.OK
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			if !started {
				started = true
				buf[0] = kind
				ready <- struct{}{}
				return 1, 0, runtime.OK
			}
			n := copy(buf, data[:toSend])
			if toSend -= n; toSend > 0 {
				s.RequestTx()
			}
			return n, 0, runtime.OK
		},
		Rx: func(s *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			if toReceive -= len(buf); toReceive > 0 {
				return runtime.OK
			}
			if left--; left == 0 {
				done <- struct{}{}
				return runtime.OK
			}
			toSend, toReceive = send, receive
			s.RequestTx()
			return runtime.OK
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	s.RequestTx()
	<-ready
	b.Cleanup(func() { ignoreStates(s) })
	return func(each int) {
		left, toSend, toReceive = each, send, receive
		s.RequestTx()
		<-done
	}
}

// ignoreStates ignores the end of a stream.
func ignoreStates(s *runtime.Stream) {
	s.SetHandlers(runtime.Handlers{State: func(*runtime.Stream, runtime.State, uint32) runtime.Result { return runtime.OK }})
}

// rawByHand returns the same by hand.
func rawByHand(b *testing.B, addr string, kind byte, send, receive int) (run func(each int)) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte{kind}); err != nil {
		b.Fatal(err)
	}
	data, out, buf := make([]byte, send), make([]byte, 64<<10), make([]byte, 64<<10)
	return func(each int) {
		for range each {
			for left := send; left > 0; {
				n := copy(out, data[:left]) // as Tx must
				if _, err := c.Write(out[:n]); err != nil {
					b.Error(err)
					return
				}
				left -= n
			}
			for left := receive; left > 0; {
				n, err := c.Read(buf)
				if err != nil {
					b.Error(err)
					return
				}
				left -= n
			}
		}
	}
}

// BenchmarkIdleRaw makes 10,000 connections with one echo each, and reports the bytes and
// goroutines in this process per idle connection. By hand it is a net.Conn with a
// goroutine that reads into 2 KB.
func BenchmarkIdleRaw(b *testing.B) {
	const n = 10_000
	s := startServers(b)
	addr := netip.MustParseAddrPort(s.Raw)
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Opportunistic: true, Endpoint: addr.Addr().String(), Port: addr.Port()}
	hello := append([]byte{'e'}, make([]byte, 64)...)
	echoed := make(chan struct{}, 1)
	idle := func(b *testing.B, connect func()) {
		var before, after goruntime.MemStats
		goroutines := goruntime.NumGoroutine()
		collect(&before)
		for range n {
			connect()
			<-echoed
		}
		time.Sleep(100 * time.Millisecond) // until goroutines have ended
		collect(&after)
		bytes := int64(after.HeapAlloc) - int64(before.HeapAlloc) + int64(after.StackInuse) - int64(before.StackInuse)
		b.ReportMetric(float64(bytes)/n, "B/conn")
		b.ReportMetric(float64(goruntime.NumGoroutine()-goroutines)/n, "goroutines/conn")
	}
	b.Run("stream", func(b *testing.B) {
		for b.Loop() {
			c := newContext(b, raw.New(), st)
			h := runtime.Handlers{
				State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
					if state == runtime.StateUnreachable {
						b.Error(s.Err())
						echoed <- struct{}{}
					}
					return runtime.OK
				},
				Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
					return copy(buf, hello), 0, runtime.OK
				},
				Rx: func(*runtime.Stream, []byte, runtime.Flags) runtime.Result {
					echoed <- struct{}{}
					return runtime.OK
				},
			}
			idle(b, func() {
				s, err := c.NewStream("s", h)
				if err != nil {
					b.Fatal(err)
				}
				s.RequestTx()
			})
			teststream.Shutdown(b, c)
		}
	})
	b.Run("by hand", func(b *testing.B) {
		for b.Loop() {
			var conns []net.Conn
			idle(b, func() {
				c, err := net.Dial("tcp", s.Raw)
				if err != nil {
					b.Fatal(err)
				}
				conns = append(conns, c)
				c.Write(hello)
				go func() {
					buf := make([]byte, 2<<10)
					for {
						if _, err := c.Read(buf); err != nil {
							return
						}
						echoed <- struct{}{}
					}
				}()
			})
			for _, c := range conns {
				c.Close()
			}
		}
	})
}
