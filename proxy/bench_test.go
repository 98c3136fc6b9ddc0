package proxy

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/secure-streams/sspolicy/internal/sspcwire"
	"github.com/secure-streams/sspolicy/internal/teststream"
	ss "github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/raw"
	"github.com/secure-streams/sspolicy/runtime/transport"
	"github.com/secure-streams/sspolicy/runtime/ws"
)

// BenchmarkEcho sends a message over ws and waits for its echo, through the proxy and by a
// stream of this process. SSPC_PROXY=unix:@proxy.ss.lws measures another proxy, whose
// streamtype "spam" echoes.
func BenchmarkEcho(b *testing.B) {
	o := newOrigin(b)
	for _, size := range []int{100, 1300, 16000} {
		b.Run(fmt.Sprintf("proxy/%d", size), func(b *testing.B) {
			f := newFixtureWith(b, Options{Logger: slog.New(slog.DiscardHandler)}, o.streamtypes()...)
			benchEcho(b, f.dial(b), size)
		})
		if address := os.Getenv("SSPC_PROXY"); address != "" {
			b.Run(fmt.Sprintf("other/%d", size), func(b *testing.B) {
				a, err := ParseAddress(address)
				if err != nil {
					b.Fatal(err)
				}
				conn, err := net.Dial(a.Network, a.Host)
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				benchEcho(b, &client{b, conn, sspcwire.NewReader(conn, sspcwire.FromProxy, 2048)}, size)
			})
		}
		b.Run(fmt.Sprintf("direct/%d", size), func(b *testing.B) {
			c := teststream.NewContext(b, ss.Options{Transports: []transport.Transport{ws.New()}}, o.streamtypes()[2])
			done := make(chan struct{}, 1)
			message := bytes.Repeat([]byte{'x'}, size)
			sent := 0
			s, err := c.NewStream("spam", ss.Handlers{
				State: func(_ *ss.Stream, state ss.State, _ uint32) ss.Result {
					if state == ss.StateConnected {
						done <- struct{}{}
					}
					return ss.OK
				},
				Rx: func(_ *ss.Stream, _ []byte, flags ss.Flags) ss.Result {
					if flags&ss.FlagEOM != 0 {
						done <- struct{}{}
					}
					return ss.OK
				},
				Tx: func(s *ss.Stream, _ uint32, buf []byte) (int, ss.Flags, ss.Result) {
					n := copy(buf, message[sent:])
					flags := ss.Flags(0)
					if sent == 0 {
						flags |= ss.FlagSOM
					}
					if sent += n; sent == size {
						flags |= ss.FlagEOM
						sent = 0
					} else {
						s.RequestTx()
					}
					return n, flags, ss.OK
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			s.Connect()
			<-done
			b.SetBytes(int64(size))
			for b.Loop() {
				s.RequestTx()
				<-done
			}
		})
	}
}

func benchEcho(b *testing.B, c *client, size int) {
	c.SetDeadline(time.Now().Add(time.Minute))
	c.send(sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: "spam"}))
	c.until("CRE")
	c.connect()
	c.until("CON")
	var frames [][]byte // of the size that the client of lws sends
	for rest := size; rest > 0; rest -= 4061 {
		p := sspcwire.Payload{Data: bytes.Repeat([]byte{'x'}, min(rest, 4061))}
		if rest == size {
			p.Flags |= policy.FlagSOM
		}
		if rest <= 4061 {
			p.Flags |= policy.FlagEOM
		}
		frame, err := sspcwire.AppendPayload(nil, sspcwire.ToProxy, p)
		if err != nil {
			b.Fatal(err)
		}
		frames = append(frames, frame)
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		for _, f := range frames {
			if _, err := c.Write(f); err != nil {
				b.Fatal(err)
			}
		}
		for end := false; !end; {
			event, _, err := c.next()
			if err != nil {
				b.Fatal(err)
			}
			end = strings.Contains(event, "EOM")
		}
	}
}

// BenchmarkGet gets 1 MB, through the proxy and by Fetch.
func BenchmarkGet(b *testing.B) {
	const size = 1_000_000
	o := newOrigin(b)
	b.Run("proxy", func(b *testing.B) {
		f := newFixtureWith(b, Options{Logger: slog.New(slog.DiscardHandler)}, o.streamtypes()...)
		c := f.open(b, "get", 0)
		c.SetDeadline(time.Now().Add(time.Minute))
		c.until("CRE")
		c.set("path", fmt.Sprintf("body?n=%d", size))
		c.set("uptag", "x")
		b.SetBytes(size)
		for b.Loop() {
			c.connect()
			for event := ""; event != "DIS"; {
				var err error
				if event, _, err = c.next(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("direct", func(b *testing.B) {
		c := teststream.NewContext(b, ss.Options{Transports: []transport.Transport{http.New()}}, o.streamtypes()[0])
		b.SetBytes(size)
		for b.Loop() {
			if _, err := c.Fetch(b.Context(), "get", ss.WithMetadata("path", fmt.Sprintf("body?n=%d", size))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLinks measures the memory of links of 1,000 clients with 4 streams each, idle
// and connected to a raw peer. Apart from a socket, a client needs no memory.
func BenchmarkLinks(b *testing.B) {
	for _, connected := range []bool{false, true} {
		b.Run(fmt.Sprintf("connected=%v", connected), func(b *testing.B) {
			for b.Loop() {
				const links = 4000
				o := newOrigin(b)
				d := teststream.NewContext(b, ss.Options{Transports: []transport.Transport{raw.New(), ws.New(), http.New()}}, o.streamtypes()...)
				p := New(d, Options{})
				path := b.TempDir() + "/proxy"
				l, err := Listen(Address{Network: "unix", Host: path}, nil)
				if err != nil {
					b.Fatal(err)
				}
				go p.Serve(l)
				before := memory()
				var conns []net.Conn
				for range links {
					conn, err := net.Dial("unix", path)
					if err != nil {
						b.Fatalf("%d links: %v", len(conns), err)
					}
					conns = append(conns, conn)
					frames, err := sspcwire.AppendStreamType(nil, sspcwire.StreamType{Name: "rawecho"})
					if err != nil {
						b.Fatal(err)
					}
					if connected {
						frames = sspcwire.AppendConnect(frames)
					}
					conn.Write(frames)
				}
				want := uint64(links * 2)
				if connected {
					want = links * 4
				}
				for p.Stats().FramesOut < want {
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(100 * time.Millisecond)
				b.ReportMetric(float64(memory()-before)/links, "B/link")
				for _, c := range conns {
					c.Close()
				}
				p.Close()
			}
		})
	}
}

// memory returns the size of heap and stacks.
func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
