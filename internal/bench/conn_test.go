package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	ssws "github.com/secure-streams/sspolicy/runtime/ws"
)

// BenchmarkConnRaw exchanges echoes by Write and Read of a runtime.Conn, on one and on 16
// goroutines with a Conn each, compared with a net.Conn.
func BenchmarkConnRaw(b *testing.B) {
	addr := netip.MustParseAddrPort(startServers(b).Raw)
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolRaw, Endpoint: addr.Addr().String(), Port: addr.Port()}
	c := newContext(b, raw.New(), st)
	benchmarkConn(b, "net.Conn", func(b *testing.B) io.ReadWriteCloser {
		return hello(b, openConn(b, c))
	}, func(b *testing.B) io.ReadWriteCloser {
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			b.Fatal(err)
		}
		return hello(b, conn)
	})
}

// hello makes the server echo.
func hello(b *testing.B, conn io.ReadWriteCloser) io.ReadWriteCloser {
	if _, err := conn.Write([]byte{'e'}); err != nil {
		b.Fatal(err)
	}
	return conn
}

// BenchmarkConnWS is BenchmarkConnRaw over ws, compared with the library.
func BenchmarkConnWS(b *testing.B) {
	addr := netip.MustParseAddrPort(startServers(b).WS)
	st := &policy.StreamType{Name: "s", Protocol: policy.ProtocolWS, Endpoint: addr.Addr().String(), Port: addr.Port(), HTTP: &policy.HTTP{WSBinary: true}}
	c := newContext(b, ssws.New(), st)
	benchmarkConn(b, "bare", func(b *testing.B) io.ReadWriteCloser {
		return openConn(b, c)
	}, func(b *testing.B) io.ReadWriteCloser {
		return &bareConn{Conn: dialWS(b, addr)}
	})
}

func openConn(b *testing.B, c *runtime.Context) io.ReadWriteCloser {
	conn, err := c.Open(context.Background(), "s")
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// A bareConn reads and writes messages of the library as a runtime.Conn does.
type bareConn struct {
	*websocket.Conn
	r io.Reader // of the current message; nil between messages
}

func (c *bareConn) Write(p []byte) (int, error) {
	return len(p), c.Conn.Write(context.Background(), websocket.MessageBinary, p)
}

func (c *bareConn) Read(p []byte) (n int, err error) {
	for n == 0 {
		if c.r == nil {
			if _, c.r, err = c.Reader(context.Background()); err != nil {
				return 0, err
			}
		}
		if n, err = c.r.Read(p); err != nil {
			c.r = nil
		}
	}
	return n, nil
}

func (c *bareConn) Close() error { return c.CloseNow() }

// benchmarkConn compares two kinds of connections to an echo server.
func benchmarkConn(b *testing.B, peer string, ours, peers func(*testing.B) io.ReadWriteCloser) {
	for _, size := range []int{64, 4 << 10} {
		for _, conns := range []int{1, 16} {
			b.Run(fmt.Sprintf("%d B/conns=%d", size, conns), func(b *testing.B) {
				against(b, peer, conns, echoes(b, ours, size, conns), echoes(b, peers, size, conns))
			})
		}
	}
}

// echoes returns a function that exchanges echoes over each of n connections.
func echoes(b *testing.B, open func(*testing.B) io.ReadWriteCloser, size, n int) (run func(each int)) {
	conns := make([]io.ReadWriteCloser, n)
	buffers := make([][]byte, n)
	for i := range conns {
		conns[i], buffers[i] = open(b), make([]byte, size)
		b.Cleanup(func() { conns[i].Close() })
	}
	return func(each int) {
		var wg sync.WaitGroup
		for i, c := range conns {
			wg.Go(func() {
				for range each {
					_, err := c.Write(buffers[i])
					if err == nil {
						_, err = io.ReadFull(c, buffers[i])
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}
