package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	goruntime "runtime"
	"sync"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	ssws "github.com/secure-streams/sspolicy/runtime/ws"
)

// answerText is the answer of the servers.
const answerText = "hello, world"

// answering are handlers that answer each request with answerText.
var answering = runtime.Handlers{
	State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		if state == runtime.StateServerTxn {
			_ = s.Ack(0)
			_ = s.SetMetadata("mime", "text/plain")
			_ = s.RequestTx()
		}
		return runtime.OK
	},
	Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
		return copy(buf, answerText), runtime.FlagEOM, runtime.OK
	},
}

// echoing are handlers that echo each piece.
func echoing(*runtime.Stream) runtime.Handlers {
	var out []byte
	return runtime.Handlers{
		Rx: func(s *runtime.Stream, buf []byte, _ runtime.Flags) runtime.Result {
			out = append(out, buf...)
			_ = s.RequestTx()
			return runtime.OK
		},
		Tx: func(s *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			n := copy(buf, out)
			if out = out[:copy(out, out[n:])]; len(out) > 0 {
				_ = s.RequestTx()
			}
			return n, 0, runtime.OK
		},
	}
}

// serveOurs makes a listener and returns its address.
func serveOurs(b *testing.B, t transport.Transport, p policy.Protocol, h runtime.Handlers, o ...runtime.StreamOption) (*runtime.Stream, string) {
	b.Helper()
	st := &policy.StreamType{
		Name: "web", Protocol: p, Server: true, Endpoint: "127.0.0.1", HTTP: &policy.HTTP{},
		Metadata: []policy.Metadata{{Name: "mime", Header: "content-type:"}, {Name: "method"}, {Name: "path"}},
	}
	s, err := newContext(b, t, st).NewStream("web", h, o...)
	if err != nil {
		b.Fatal(err)
	}
	return s, s.Addr().String()
}

// serveNetHTTP starts the server of net/http and returns its address.
func serveNetHTTP(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{"text/plain"}
		io.WriteString(w, answerText)
	})}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}

// requests returns a function that makes requests on n connections: it writes request and
// reads until the answer ends with end.
func requests(b *testing.B, addr, request, end string, n int) (run func(each int)) {
	conns := make([]net.Conn, n)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", addr); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conns[i].Close() })
	}
	return func(each int) {
		var all sync.WaitGroup
		for _, c := range conns {
			all.Go(func() {
				buf := make([]byte, 4<<10)
				for range each {
					if _, err := io.WriteString(c, request); err != nil {
						b.Error(err)
						return
					}
					for got := 0; !bytes.HasSuffix(buf[:got], []byte(end)); {
						k, err := c.Read(buf[got:])
						if err != nil {
							b.Error(err)
							return
						}
						got += k
					}
				}
			})
		}
		all.Wait()
	}
}

const getRequest = "GET /page HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n"

// BenchmarkServeH1 answers requests of 1 and 64 clients. The clients, which do as little
// as possible, are in the same process.
func BenchmarkServeH1(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			_, ours := serveOurs(b, sshttp.New(sshttp.Server), policy.ProtocolH1, answering)
			against(b, "net/http", n, requests(b, ours, getRequest, answerText, n), requests(b, serveNetHTTP(b), getRequest, answerText, n))
		})
	}
}

// BenchmarkServeRaw echoes 64 bytes to 1 and 64 clients.
func BenchmarkServeRaw(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 2<<10)
				for {
					k, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:k])
				}
			}()
		}
	}()
	piece := string(bytes.Repeat([]byte("x"), 63)) + "\n"
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			_, ours := serveOurs(b, raw.New(raw.TLS, raw.Server), policy.ProtocolRaw, runtime.Handlers{}, runtime.WithClients(echoing))
			against(b, "net.Conn", n, requests(b, ours, piece, "\n", n), requests(b, ln.Addr().String(), piece, "\n", n))
		})
	}
}

// BenchmarkIdleServer makes 2,000 connections with a request each, and reports the bytes in
// this process per idle connection, those of the client included.
func BenchmarkIdleServer(b *testing.B) {
	make := func(addr string, n int) (run func(each int)) {
		return requests(b, addr, getRequest, answerText, n)
	}
	b.Run("stream", func(b *testing.B) {
		for b.Loop() {
			s, addr := serveOurs(b, sshttp.New(sshttp.Server), policy.ProtocolH1, answering)
			idle(b, addr, make)
			s.Destroy()
		}
	})
	b.Run("net/http", func(b *testing.B) {
		for b.Loop() {
			idle(b, serveNetHTTP(b), make)
		}
	})
}

// BenchmarkIdleServeWS does the same with WebSockets and a message each, compared with the
// library by hand.
func BenchmarkIdleServeWS(b *testing.B) {
	make := func(addr string, n int) (run func(each int)) { return sockets(b, addr, n) }
	b.Run("stream", func(b *testing.B) {
		for b.Loop() {
			s, addr := serveOurs(b, ssws.New(ssws.Server), policy.ProtocolWS, runtime.Handlers{}, runtime.WithClients(echoingMessages))
			idle(b, addr, make)
			s.Destroy()
		}
	})
	b.Run("by hand", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(echoWS)}
		go srv.Serve(ln)
		defer srv.Close()
		for b.Loop() {
			idle(b, ln.Addr().String(), make)
		}
	})
}

// idle reports the memory of connections to a server that are idle after an exchange.
func idle(b *testing.B, addr string, make func(addr string, n int) (run func(each int))) {
	const n = 2_000
	needFiles(b, 2*n+100)
	make(addr, 1)(1) // memory of the first connection only
	var before, after goruntime.MemStats
	collect(&before)
	make(addr, n)(1)
	time.Sleep(100 * time.Millisecond) // until goroutines have ended
	collect(&after)
	stack := int64(after.StackInuse) - int64(before.StackInuse)
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)+stack)/n, "B/conn")
	b.ReportMetric(float64(stack)/n, "stack-B/conn")
}
