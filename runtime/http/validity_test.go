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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// A frameServer is a server of h2 without TLS that does nothing by itself but
// greet: on is told of each frame of a client.
type frameServer struct {
	on func(c *frameConn, f http2.Frame)
}

type frameConn struct {
	net.Conn
	*http2.Framer
	n      int // of the connection, from 1
	opened time.Time
}

// answer sends the headers of a response, which end the stream or not.
func (c *frameConn) answer(stream uint32, end bool) {
	var b bytes.Buffer
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

func (s frameServer) conn() func(net.Conn) {
	var conns atomic.Int32
	return func(nc net.Conn) {
		defer nc.Close()
		r := bufio.NewReader(nc)
		if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		c := &frameConn{Conn: nc, Framer: http2.NewFramer(nc, r), n: int(conns.Add(1)), opened: time.Now()}
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
	}
}

// TestValidity checks when an h2 connection is probed, and that one whose peer
// has died in silence is hung up, so that the stream tries again.
func TestValidity(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name         string
		ping, hangup time.Duration
		answers      int // how many pings of the first connection are answered
		pings        int // of the first connection, at least, or -1: none
		want         string
	}{
		{"ping and hang up", 100 * ms, 250 * ms, 0, 1, "CRE CNG CON rx(SOM) DIS POL CNG CON rx(SOM)"},
		{"answered for a while", 50 * ms, 400 * ms, 3, 4, "CRE CNG CON rx(SOM) DIS POL CNG CON rx(SOM)"},
		{"hang up only", 0, 200 * ms, 0, -1, "CRE CNG CON rx(SOM) DIS POL CNG CON rx(SOM)"},
		{"hang up before the ping", 200 * ms, 200 * ms, 0, -1, "CRE CNG CON rx(SOM) DIS POL CNG CON rx(SOM)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var pings []time.Duration
			sv := frameServer{on: func(c *frameConn, f http2.Frame) {
				switch f := f.(type) {
				case *http2.HeadersFrame:
					c.answer(f.StreamID, false)
					c.WriteData(f.StreamID, false, []byte("news"))
				case *http2.PingFrame:
					if c.n > 1 {
						c.WritePing(true, f.Data)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					pings = append(pings, time.Since(c.opened))
					if len(pings) <= tt.answers {
						c.WritePing(true, f.Data)
					}
				}
			}}
			addr := server{conn: sv.conn()}.start(t)
			type loss struct {
				err  error
				took time.Duration
			}
			losses := make(chan loss, 10)
			start := time.Now()
			tr := &trace{on: on{"DIS": func(s *runtime.Stream) policy.Result {
				losses <- loss{s.Err(), time.Since(start)}
				return policy.OK
			}}}
			_, s := newStream(t, policy.StreamType{Protocol: policy.ProtocolH2, NailedUp: true,
				Retry: &policy.Retry{Backoff: []time.Duration{10 * ms}, Conceal: 3, ValidPing: tt.ping, ValidHangup: tt.hangup}},
				addr, tr, runtime.Options{})
			tr.await(t, len(strings.Fields(tt.want)))
			want(t, tr, tt.want)
			s.Destroy()
			if l := <-losses; !errors.Is(l.err, transport.ErrNoValidity) || l.took < tt.hangup {
				t.Errorf("hung up after %v, want %v at least: %v", l.took, tt.hangup, l.err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(pings) < tt.pings || tt.pings < 0 && len(pings) > 0 {
				t.Errorf("%d pings", len(pings))
			}
			for i, at := range pings {
				if at < tt.ping*time.Duration(i+1) {
					t.Errorf("ping %d after %v", i, at)
				}
			}
		})
	}
}

// TestValidityIdle checks that streams with other times do not share a
// connection, and that an idle connection is pinged, but not kept for it.
func TestValidityIdle(t *testing.T) {
	var conns, pings atomic.Int32
	sv := frameServer{on: func(c *frameConn, f http2.Frame) {
		switch f := f.(type) {
		case *http2.HeadersFrame:
			conns.Store(int32(c.n))
			c.answer(f.StreamID, true)
		case *http2.PingFrame:
			if !f.IsAck() {
				pings.Add(1)
				c.WritePing(true, f.Data)
			}
		}
	}}
	addr := server{conn: sv.conn()}.start(t)
	var types []*policy.StreamType
	for name, ping := range map[string]time.Duration{"a": 30 * time.Millisecond, "b": 30 * time.Millisecond, "c": time.Hour} {
		types = append(types, &policy.StreamType{Name: name, Protocol: policy.ProtocolH2, HTTP: &policy.HTTP{},
			Endpoint: addr.Addr().String(), Port: addr.Port(), Retry: &policy.Retry{ValidPing: ping}})
	}
	c := newPolicy(t, types, runtime.Options{})
	for _, name := range []string{"a", "b", "a"} {
		if _, err := c.Fetch(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for streams that may share one", n)
	}
	if _, err := c.Fetch(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections with a stream of other times", n)
	}
	for deadline := time.Now().Add(10 * time.Second); pings.Load() < 3 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	if pings.Load() < 3 {
		t.Error("no pings on an idle connection")
	}
}

// TestPeerTxCredit checks that no more than the credit is delivered, that the
// peer's window stalls soon after, and that the end of the body needs none.
func TestPeerTxCredit(t *testing.T) {
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
	sv := frameServer{on: func(c *frameConn, f http2.Frame) {
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
	}}
	addr := server{conn: sv.conn()}.start(t)
	c := newContext(t, policy.StreamType{Protocol: policy.ProtocolH2, Opportunistic: true}, addr, runtime.Options{})
	tr := &trace{}
	s, err := c.NewStream("s", tr.handlers(), runtime.WithPeerTxCredit(1500))
	if err != nil {
		t.Fatal(err)
	}
	s.Connect()
	body := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.body)
	}
	total := 1500
	for add := range 4 {
		n := 10_000 * add
		s.AddPeerTxCredit(uint32(n))
		total += n
		for deadline := time.Now().Add(10 * time.Second); body() < total && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		time.Sleep(20 * time.Millisecond) // for more to come than should
		mu.Lock()
		if got := body(); got != total || sent > total+window {
			t.Errorf("%d bytes delivered, %d sent, with a credit of %d", got, sent, total)
		}
		mu.Unlock()
	}
	s.AddPeerTxCredit(uint32(size - total))
	tr.AwaitEnd(t, "rx(EOM) ACK DIS")
	if body() != size {
		t.Errorf("%d bytes", body())
	}
}

// TestPeerTxCreditParts checks that a program that gives credit for what it gets
// gets all of a multipart response: what is between the parts needs none.
func TestPeerTxCreditParts(t *testing.T) {
	const parts, credit = 100, 50
	url := both(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "multipart/mixed; boundary=0123456789")
		io.WriteString(w, strings.Repeat("\r\n--0123456789\r\nhello", parts)+"\r\n--0123456789--\r\n"+strings.Repeat(" ", 1000))
	}))
	c := contextOf(t, policy.ProtocolH2, url, policy.StreamType{Name: "s", HTTP: &policy.HTTP{MultipartSSIn: true}})
	tr := &trace{}
	h := tr.handlers()
	var body []byte
	given := credit
	h.Rx = func(s *runtime.Stream, buf []byte, _ policy.Flags) policy.Result {
		body = append(body, buf...)
		if len(body) > given {
			t.Errorf("%d bytes delivered with a credit of %d", len(body), given)
		}
		more := min(len(buf), parts*len("hello")-given) // no more than needed
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

// TestIdleConnection checks that pings do not keep a connection that nobody
// uses: it is closed 30 s after its last request.
func TestIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings []time.Duration
		var closed time.Duration
		start := time.Now()
		serve := frameServer{on: func(c *frameConn, f http2.Frame) {
			switch f := f.(type) {
			case *http2.HeadersFrame:
				c.answer(f.StreamID, true)
			case *http2.PingFrame:
				pings = append(pings, time.Since(start))
				c.WritePing(true, f.Data)
			}
		}}.conn()
		c := newPolicy(t, []*policy.StreamType{{Name: "s", Protocol: policy.ProtocolH2, HTTP: &policy.HTTP{}, Endpoint: "127.0.0.1", Port: 80,
			Retry: &policy.Retry{ValidPing: 7 * time.Second, ValidHangup: 20 * time.Second}}},
			runtime.Options{DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					serve(newQueued(theirs))
					closed = time.Since(start)
				}()
				return ours, nil
			}})
		if _, err := c.Fetch(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fmt.Sprint(pings, closed); got != "[7s 14s 21s 28s] 30s" {
			t.Errorf("pings and close at %s", got)
		}
		c.Close()
	})
}

// A queued is a connection whose writes do not wait for the reader.
type queued struct {
	net.Conn
	queue chan []byte
}

func newQueued(c net.Conn) queued {
	q := queued{c, make(chan []byte, 100)}
	go func() {
		for b := range q.queue {
			c.Write(b)
		}
	}()
	return q
}

func (q queued) Write(b []byte) (int, error) {
	q.queue <- bytes.Clone(b)
	return len(b), nil
}

func (q queued) Close() error {
	close(q.queue)
	return q.Conn.Close()
}
