package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	ssws "github.com/secure-streams/sspolicy/runtime/ws"
)

// echoingMessages are handlers that echo each message.
func echoingMessages(*runtime.Stream) runtime.Handlers {
	var message []byte
	return runtime.Handlers{
		Rx: func(s *runtime.Stream, buf []byte, flags runtime.Flags) runtime.Result {
			message = append(message, buf...)
			if flags&runtime.FlagEOM != 0 {
				_ = s.RequestTx()
			}
			return runtime.OK
		},
		Tx: func(_ *runtime.Stream, _ uint32, buf []byte) (int, runtime.Flags, runtime.Result) {
			n := copy(buf, message)
			message = message[:0]
			return n, runtime.FlagSOM | runtime.FlagEOM, runtime.OK
		},
	}
}

// sockets returns a function that exchanges messages of 64 bytes by n WebSockets. The
// clients do as little as possible.
func sockets(b *testing.B, addr string, n int) (run func(each int)) {
	payload := strings.Repeat("x", 64)
	frame := "\x82\xc0\x00\x00\x00\x00" + payload // masked with zeros
	conns, readers := make([]net.Conn, n), make([]*bufio.Reader, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		conns[i], readers[i] = c, bufio.NewReader(c)
		if resp, err := http.ReadResponse(readers[i], nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			b.Fatal(resp, err)
		}
	}
	return func(each int) {
		var all sync.WaitGroup
		for i, c := range conns {
			all.Go(func() {
				buf := make([]byte, 2+len(payload))
				for range each {
					if _, err := io.WriteString(c, frame); err != nil {
						b.Error(err)
						return
					}
					if _, err := io.ReadFull(readers[i], buf); err != nil || string(buf[2:]) != payload {
						b.Errorf("%q %v", buf, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}

// BenchmarkServeWS echoes messages to 1 and 64 clients, compared with the library by hand.
func BenchmarkServeWS(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(echoWS)}
	go srv.Serve(ln)
	defer srv.Close()
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			_, ours := serveOurs(b, ssws.New(ssws.Server), policy.ProtocolWS, runtime.Handlers{}, runtime.WithClients(echoingMessages))
			against(b, "coder/websocket", n, sockets(b, ours, n), sockets(b, ln.Addr().String(), n))
		})
	}
}
