package http_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A frameServer is an h2 server without TLS that only sends the preface. on handles each
// frame of a client.
type frameServer struct {
	on func(c *frameConn, f http2.Frame)
}

var frameAddr = netip.MustParseAddrPort("127.0.0.1:80")

type frameConn struct {
	net.Conn
	*http2.Framer
	n      int // of the connection, from 1
	opened time.Time
}

// answer sends the headers of a response; end means that it has no body.
func (c *frameConn) answer(stream uint32, end bool) {
	var b bytes.Buffer
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

// start runs the server at frameAddr in a bubble of synctest.
func (s frameServer) start(t *testing.T) *testserver.Network {
	var network testserver.Network
	var conns atomic.Int32
	testserver.Serve(t, network.Listen(frameAddr.String()), func(conn net.Conn) {
		q := newQueuingConn(conn)
		defer q.Close()
		r := bufio.NewReader(q)
		if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		c := &frameConn{Conn: q, Framer: http2.NewFramer(q, r), n: int(conns.Add(1)), opened: time.Now()}
		c.WriteSettings()
		for {
			f, err := c.ReadFrame()
			if err != nil {
				return
			}
			if f, ok := f.(*http2.SettingsFrame); ok && !f.IsAck() {
				c.WriteSettingsAck()
			}
			s.on(c, f)
		}
	})
	return &network
}

// A queuingConn is a connection whose writes do not wait for the reader.
type queuingConn struct {
	net.Conn
	queue chan []byte
}

func newQueuingConn(c net.Conn) queuingConn {
	q := queuingConn{c, make(chan []byte, 100)}
	go func() {
		for b := range q.queue {
			c.Write(b)
		}
	}()
	return q
}

func (q queuingConn) Write(b []byte) (int, error) {
	q.queue <- bytes.Clone(b)
	return len(b), nil
}

func (q queuingConn) Close() error {
	close(q.queue)
	return q.Conn.Close()
}

// TestValidity checks when an h2 connection is probed, and that one whose peer is
// silent is closed, so that the stream tries again.
func TestValidity(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name         string
		ping, hangup time.Duration
		answers      int    // number of pings of the first connection that are answered
		pings        string // times of the pings of the first connection
		lost         time.Duration
	}{
		{"ping and hang up", 100 * ms, 250 * ms, 0, "[100ms]", 250 * ms},
		{"answered for a while", 50 * ms, 400 * ms, 3, "[50ms 100ms 150ms 200ms]", 550 * ms},
		{"hang up only", 0, 200 * ms, 0, "[]", 200 * ms},
		{"hang up before the ping", 200 * ms, 200 * ms, 0, "[]", 200 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var pings []time.Duration
				network := frameServer{on: func(c *frameConn, f http2.Frame) {
					switch f := f.(type) {
					case *http2.HeadersFrame:
						c.answer(f.StreamID, false)
						c.WriteData(f.StreamID, false, []byte("news"))
					case *http2.PingFrame:
						if c.n > 1 {
							c.WritePing(true, f.Data)
							return
						}
						if pings = append(pings, time.Since(c.opened)); len(pings) <= tt.answers {
							c.WritePing(true, f.Data)
						}
					}
				}}.start(t)
				var cause error
				var lost time.Duration
				start := time.Now()
				tr := &teststream.Trace{On: teststream.Actions{"DIS": func(s *runtime.Stream) policy.Result {
					if cause == nil {
						cause, lost = s.Err(), time.Since(start)
					}
					return policy.OK
				}}}
				_, s := newStream(t, policy.StreamType{Protocol: policy.ProtocolH2, NailedUp: true,
					Retry: &policy.Retry{Backoff: []time.Duration{10 * ms}, Conceal: 3, ValidPing: tt.ping, ValidHangup: tt.hangup}},
					frameAddr, tr, runtime.Options{DialContext: network.DialContext})
				const want = "CRE CNG CON rx(SOM) DIS POL CNG CON rx(SOM)"
				tr.AwaitEnd(t, want)
				s.Destroy()
				if !errors.Is(cause, transport.ErrNoValidity) || lost != tt.lost {
					t.Errorf("lost after %v, want %v: %v", lost, tt.lost, cause)
				}
				if got := fmt.Sprint(pings); got != tt.pings {
					t.Errorf("pings after %s, want %s", got, tt.pings)
				}
			})
		})
	}
}

// TestValidityIdle checks that streams with different times do not share a
// connection, and that an idle connection is pinged.
func TestValidityIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, pings := 0, 0
		network := frameServer{on: func(c *frameConn, f http2.Frame) {
			switch f := f.(type) {
			case *http2.HeadersFrame:
				conns = c.n
				c.answer(f.StreamID, true)
			case *http2.PingFrame:
				if !f.IsAck() {
					pings++
					c.WritePing(true, f.Data)
				}
			}
		}}.start(t)
		var types []*policy.StreamType
		for name, ping := range map[string]time.Duration{"a": 30 * time.Millisecond, "b": 30 * time.Millisecond, "c": time.Hour} {
			types = append(types, &policy.StreamType{Name: name, Protocol: policy.ProtocolH2, HTTP: &policy.HTTP{},
				Endpoint: "127.0.0.1", Port: 80, Retry: &policy.Retry{ValidPing: ping}})
		}
		c := newPolicy(t, types, runtime.Options{DialContext: network.DialContext})
		for _, name := range []string{"a", "b", "a"} {
			if _, err := c.Fetch(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if conns != 1 {
			t.Errorf("%d connections of streams with the same times", conns)
		}
		if _, err := c.Fetch(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		if conns != 2 {
			t.Errorf("%d connections with a stream of other times", conns)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if pings != 3 {
			t.Errorf("%d pings of an idle connection", pings)
		}
	})
}

// TestPeerTxCredit checks that at most the credit is delivered, that the window of the peer
// is exhausted soon after, and that the end of the body needs no credit.
func TestPeerTxCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, window = 100_000, 4 << 10
		var mu sync.Mutex
		var sent, may int // on the first stream; may is what its window allows
		var initial int
		send := func(c *frameConn) {
			for sent < size && may > 0 {
				n := min(may, size-sent, 1000)
				c.WriteData(1, sent+n == size, make([]byte, n))
				sent, may = sent+n, may-n
			}
		}
		network := frameServer{on: func(c *frameConn, f http2.Frame) {
			mu.Lock()
			defer mu.Unlock()
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
					initial = int(v)
				}
			case *http2.HeadersFrame:
				may = initial
				c.answer(f.StreamID, false)
				send(c)
			case *http2.WindowUpdateFrame:
				if f.StreamID == 1 {
					may += int(f.Increment)
					send(c)
				}
			}
		}}.start(t)
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2, Opportunistic: true}, frameAddr, runtime.Options{DialContext: network.DialContext})
		tr := &teststream.Trace{}
		s, err := c.NewStream("s", handlers(tr), runtime.WithPeerTxCredit(1500))
		if err != nil {
			t.Fatal(err)
		}
		s.Connect()
		total := 1500
		for add := range 4 {
			n := 10_000 * add
			s.AddPeerTxCredit(uint32(n))
			total += n
			synctest.Wait()
			mu.Lock()
			if got := len(tr.Body()); got != total || sent > total+window {
				t.Errorf("%d bytes delivered, %d sent, with a credit of %d", got, sent, total)
			}
			mu.Unlock()
		}
		s.AddPeerTxCredit(uint32(size - total))
		tr.AwaitEnd(t, "rx(EOM) ACK DIS")
		if n := len(tr.Body()); n != size {
			t.Errorf("%d bytes", n)
		}
	})
}

// TestPeerTxCreditPadding checks that padding, which the program does not see, needs no
// credit.
func TestPeerTxCreditPadding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := frameServer{on: func(c *frameConn, f http2.Frame) {
			if h, ok := f.(*http2.HeadersFrame); ok {
				c.answer(h.StreamID, false)
				for range 100 { // 25 KB, and the window has 4 KB
					c.WriteDataPadded(h.StreamID, false, nil, make([]byte, 255))
				}
				c.WriteData(h.StreamID, true, []byte("x"))
			}
		}}.start(t)
		c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2, Opportunistic: true}, frameAddr, runtime.Options{DialContext: network.DialContext})
		tr := &teststream.Trace{}
		s, err := c.NewStream("s", handlers(tr), runtime.WithPeerTxCredit(1))
		if err != nil {
			t.Fatal(err)
		}
		s.Connect()
		tr.AwaitEnd(t, "ACK DIS")
	})
}

// TestPeerTxCreditParts checks that bytes between the parts of a multipart response
// need no credit.
func TestPeerTxCreditParts(t *testing.T) {
	const parts, credit = 100, 50
	url := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/mixed; boundary=0123456789")
		io.WriteString(w, strings.Repeat("\r\n--0123456789\r\nhello", parts)+"\r\n--0123456789--\r\n"+strings.Repeat(" ", 1000))
	}))
	c := contextOf(t, policy.ProtocolH2, url, policy.StreamType{Name: "s", HTTP: &policy.HTTP{MultipartSSIn: true}})
	tr := &teststream.Trace{}
	h := handlers(tr)
	var body []byte
	given := credit
	h.Rx = func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
		body = append(body, buf...)
		if len(body) > given {
			t.Errorf("%d bytes delivered with a credit of %d", len(body), given)
		}
		more := min(len(buf), parts*len("hello")-given)
		given += more
		s.AddPeerTxCredit(uint32(more))
		return policy.OK
	}
	s, err := c.NewStream("s", h, runtime.WithPeerTxCredit(credit))
	if err != nil {
		t.Fatal(err)
	}
	s.Connect()
	tr.AwaitEnd(t, "CRE CNG CON ACK DIS")
	if string(body) != strings.Repeat("hello", parts) {
		t.Errorf("got %q", body)
	}
}

// TestIdleConnection checks that pings do not keep a connection without requests:
// it is closed 30 s after its last request.
func TestIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings []time.Duration
		var closed time.Duration
		start := time.Now()
		network := frameServer{on: func(c *frameConn, f http2.Frame) {
			switch f := f.(type) {
			case *http2.HeadersFrame:
				c.answer(f.StreamID, true)
			case *http2.PingFrame:
				pings = append(pings, time.Since(start))
				c.WritePing(true, f.Data)
			}
		}}.start(t)
		c := newPolicy(t, []*policy.StreamType{{Name: "s", Protocol: policy.ProtocolH2, HTTP: &policy.HTTP{}, Endpoint: "127.0.0.1", Port: 80,
			Retry: &policy.Retry{ValidPing: 7 * time.Second, ValidHangup: 20 * time.Second}}},
			runtime.Options{DialContext: func(ctx context.Context, protocol, address string) (net.Conn, error) {
				conn, err := network.DialContext(ctx, protocol, address)
				return closeNotifier{conn, sync.OnceFunc(func() { closed = time.Since(start) })}, err
			}})
		if _, err := c.Fetch(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fmt.Sprint(pings, closed); got != "[7s 14s 21s 28s] 30s" {
			t.Errorf("pings and close at %s", got)
		}
	})
}

// A closeNotifier is a connection that calls a function before Close.
type closeNotifier struct {
	net.Conn
	closing func()
}

func (c closeNotifier) Close() error {
	c.closing()
	return c.Conn.Close()
}
