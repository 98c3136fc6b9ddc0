package http_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	sshttp "github.com/secure-streams/sspolicy/runtime/http"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

// paths are the request paths that a program has seen.
type paths struct {
	clients
	seen chan string
}

func newPaths() *paths {
	p := &paths{seen: make(chan string, 10_000)}
	p.on = teststream.Actions{"TXN": func(s *runtime.Stream) runtime.Result {
		p.seen <- item(s, "path")
		s.Ack(0)
		return runtime.OK
	}}
	return p
}

// TestSmuggling sends requests whose length is ambiguous, with another request in the
// ambiguous part. The server must not process that request, unless RFC 9112 section 6.3
// makes the message unambiguous.
func TestSmuggling(t *testing.T) {
	inner := "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
	chunked := "0\r\n\r\n"
	for name, tt := range map[string]struct {
		head, body string
		legal      bool // Transfer-Encoding overrides Content-Length, so inner is a request
	}{
		"CL and TE":             {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunked, true},
		"TE with a space":       {"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", chunked, false},
		"TE obfuscated":         {"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n", chunked, false},
		"two TE":                {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunked, false},
		"TE with a tab":         {"Transfer-Encoding:\tchunked, identity\r\n", chunked, false},
		"two CL":                {"Content-Length: 5\r\nContent-Length: 0\r\n", chunked, false},
		"CL with a sign":        {"Content-Length: +5\r\n", chunked, false},
		"folded TE":             {"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 40\r\n", chunked, false},
		"chunk size overflow":   {"Transfer-Encoding: chunked\r\n", "10000000000000000\r\n", false},
		"chunk size with space": {"Transfer-Encoding: chunked\r\n", "0 x\r\n\r\n", false},
		"bare LF in chunks":     {"Transfer-Encoding: chunked\r\n", "1\nx\n0\n\n", false},
		"bare CR in a header":   {"X: a\rContent-Length: 0\r\n", "", false},
		"NUL in a header":       {"X: a\x00b\r\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPaths()
			s := p.listen(t, serverType(policy.ProtocolH1))
			exchangeRaw(t, s.Addr().String(), "POST /outer HTTP/1.1\r\nHost: h\r\n"+tt.head+"\r\n"+tt.body+inner)
			smuggled := false
			for len(p.seen) > 0 {
				smuggled = <-p.seen == "/smuggled" || smuggled
			}
			if smuggled != tt.legal {
				t.Errorf("the inner request was seen: %v", smuggled)
			}
		})
	}
}

func TestPipelining(t *testing.T) {
	const n = 1000
	p := newPaths()
	s := p.listen(t, serverType(policy.ProtocolH1))
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
	}
	got := exchangeRaw(t, s.Addr().String(), b.String())
	if k := strings.Count(got, "HTTP/1.1 200 OK"); k != n {
		t.Errorf("%d answers to %d requests", k, n)
	}
	for i := range n {
		if got := <-p.seen; got != fmt.Sprintf("/%d", i) {
			t.Fatalf("request %d is %q", i, got)
		}
	}
	if len(p.traces) != 1 {
		t.Errorf("%d streams for one connection", len(p.traces))
	}
}

// TestServerLimits has clients that exceed a limit. It compares the status, or "" for a
// connection closed without an answer.
func TestServerLimits(t *testing.T) {
	limits := runtime.Limits{HeaderBytes: 4 << 10, BodyBytes: 100, HeaderTimeout: 50 * time.Millisecond, IdleTimeout: 100 * time.Millisecond}
	for name, tt := range map[string]struct {
		request string
		status  string
		states  string // "" if there is no stream
	}{
		"silence":           {"", "", ""},
		"slow head":         {"GET / HTTP/1.1\r\nHost: h\r\n", "", ""},
		"long header":       {"GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", "431", ""},
		"many headers":      {"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 4<<10) + "\r\n", "431", ""},
		"long URL":          {"GET /" + strings.Repeat("x", 20<<10) + " HTTP/1.1\r\nHost: h\r\n\r\n", "431", ""},
		"long body":         {"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n" + strings.Repeat("x", 101), "413", ""},
		"long chunked body": {"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + strings.Repeat("x", 0x65) + "\r\n0\r\n\r\n", "413", "CRE CNG CON TXN rx(SOM) DIS DES"},
		"slow body":         {"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx", "", "CRE CNG CON TXN rx(SOM) DIS DES"},
		"idle":              {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "200", "CRE CNG CON TXN DIS DES"},
		"not HTTP":          {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", "400", ""},
		"HTTP/2 without h2": {http2.ClientPreface, "505", ""},
		"invalid chunk":     {"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "", "CRE CNG CON TXN DIS DES"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var network testserver.Network
				p := newPaths()
				p.listen(t, serverType(policy.ProtocolH1), runtime.WithLimits(limits), runtime.WithListener(network.Listen("h:80")))
				conn := teststream.Must(network.DialContext(t.Context(), "tcp", "h:80"))
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				go io.WriteString(conn, tt.request) // the server may not read all of it
				all, err := io.ReadAll(conn)
				if err != nil {
					t.Error(err)
				}
				status := ""
				if len(all) > 12 {
					status = string(all[9:12])
				}
				if status != tt.status {
					t.Errorf("answer %q, want status %q", all, tt.status)
				}
				if tt.states == "" {
					if len(p.traces) > 0 {
						t.Errorf("there is a stream: %s", p.traces[0])
					}
					return
				}
				p.trace(t, 0).AwaitEnd(t, "DES")
				p.trace(t, 0).Want(t, tt.states)
			})
		})
	}
}

// TestConnectionLimit checks that the limit of connections holds, and that a waiting
// connection is accepted when another one ends.
func TestConnectionLimit(t *testing.T) {
	p := newPaths()
	s := p.listen(t, serverType(policy.ProtocolH1), runtime.WithLimits(runtime.Limits{Connections: 2}))
	request := "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	var conns []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		io.WriteString(c, request)
	}
	for _, c := range conns[:2] {
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
	}
	conns[2].SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := conns[2].Read(make([]byte, 1)); n > 0 || !errors.Is(err, err.(net.Error)) {
		t.Error("a third connection was accepted")
	}
	conns[0].Close()
	conns[2].SetReadDeadline(time.Now().Add(10 * time.Second))
	if resp, err := http.ReadResponse(bufio.NewReader(conns[2]), nil); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
}

// TestPortScan opens and closes connections, some after part of a request.
func TestPortScan(t *testing.T) {
	p := newPaths()
	s := p.listen(t, serverType(policy.ProtocolH2))
	for i := range 500 {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, http2.ClientPreface[:i%25])
		c.(*net.TCPConn).SetLinger(i%2 - 1)
		c.Close()
	}
	if got := exchangeRaw(t, s.Addr().String(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Error(got)
	}
	if len(p.traces) != 1 {
		t.Errorf("%d streams", len(p.traces))
	}
}

// TestIdleConnections opens IDLE (1000) connections, half of which make a request, and
// makes another request. Idle connections need little memory, and end with the listener.
func TestIdleConnections(t *testing.T) {
	n := 1000
	if v := os.Getenv("IDLE"); v != "" {
		n = teststream.Must(strconv.Atoi(v))
	}
	p := newPaths()
	s := p.listen(t, serverType(policy.ProtocolH1), runtime.WithLimits(runtime.Limits{Connections: n + 1, AcceptRate: -1}))
	const request, end = "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "\r\n\r\n"
	var before, after goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&before)
	var conns []net.Conn
	for i := range n {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		conns = append(conns, c)
		if i%2 == 0 {
			continue
		}
		io.WriteString(c, request)
		var buf [1024]byte
		for got := 0; !bytes.Contains(buf[:got], []byte(end)); {
			k, err := c.Read(buf[got:])
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			got += k
		}
	}
	goruntime.GC()
	goruntime.ReadMemStats(&after)
	each := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / int64(n)
	t.Logf("%d B for each connection", each)
	if each > 64<<10 {
		t.Errorf("each connection takes %d B", each)
	}
	if got := exchangeRaw(t, s.Addr().String(), request); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Error(got)
	}
	p.mu.Lock()
	streams := len(p.traces)
	p.mu.Unlock()
	if streams != n/2+1 { // none for connections without a request
		t.Errorf("%d streams", streams)
	}
	s.Destroy()
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

// An h2Peer is a client that sends frames.
type h2Peer struct {
	*http2.Framer
	conn net.Conn
	head []byte // header block of a GET
}

func dialH2(t *testing.T, s *runtime.Stream) *h2Peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, http2.ClientPreface)
	p := &h2Peer{Framer: http2.NewFramer(conn, conn), conn: conn}
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/"}} {
		e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	p.head = b.Bytes()
	if err := p.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return p
}

// ends reads frames until the connection ends, and reports the code of GOAWAY, if any.
func (p *h2Peer) ends() (code http2.ErrCode, goAway bool) {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return code, goAway
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code, goAway = g.ErrCode, true
		}
	}
}

// TestRapidReset starts and resets requests endlessly. The number of concurrent streams
// stays within the limit.
func TestRapidReset(t *testing.T) {
	const limit = 10
	var live, most atomic.Int64
	block := make(chan struct{})
	k := &clients{on: teststream.Actions{"TXN": func(*runtime.Stream) runtime.Result {
		if n := live.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-block
		live.Add(-1)
		return runtime.OK
	}}}
	s := k.listen(t, serverType(policy.ProtocolH2), runtime.WithLimits(runtime.Limits{Streams: limit}))
	p := dialH2(t, s)
	go func() {
		for id := uint32(1); id < 4000; id += 2 {
			if p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.head, EndHeaders: true, EndStream: true}) != nil ||
				p.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	code, _ := p.ends()
	close(block)
	if code != http2.ErrCodeEnhanceYourCalm || most.Load() > limit {
		t.Errorf("the connection ended with %v, %d streams at a time", code, most.Load())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, tr := range k.traces {
		tr.AwaitEnd(t, "DES")
	}
}

// TestH2Floods checks that endless frames end the connection.
func TestH2Floods(t *testing.T) {
	for name, flood := range map[string]func(*h2Peer) error{
		"CONTINUATION": func(p *h2Peer) error {
			if err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.head}); err != nil {
				return err
			}
			var b bytes.Buffer
			hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 8<<10)})
			for {
				if err := p.WriteContinuation(1, false, b.Bytes()); err != nil {
					return err
				}
			}
		},
		"SETTINGS": func(p *h2Peer) error {
			for {
				if err := p.WriteSettings(); err != nil {
					return err
				}
			}
		},
		"PING": func(p *h2Peer) error {
			for {
				if err := p.WritePing(false, [8]byte{}); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newPaths()
			p := dialH2(t, k.listen(t, serverType(policy.ProtocolH2), runtime.WithLimits(runtime.Limits{IdleTimeout: 2 * time.Second})))
			if err := flood(p); errors.Is(err, net.ErrClosed) || err.(net.Error).Timeout() { // the server does not read
				t.Error(err)
			}
		})
	}
}

// TestUnreadBody rejects requests whose body never arrives. The connection ends
// nevertheless.
func TestUnreadBody(t *testing.T) {
	k := &clients{on: teststream.Actions{"TXN": do(ack(403))}}
	s := k.listen(t, serverType(policy.ProtocolH1), runtime.WithLimits(runtime.Limits{IdleTimeout: 100 * time.Millisecond}))
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx")
	if answer, err := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 403") || err != nil {
		t.Errorf("%q, %v", answer, err)
	}
	k.trace(t, 0).AwaitEnd(t, "DES")
}

// TestHandleWindow has an h2 client that does not read the answer of a handler, but keeps
// the connection alive.
func TestHandleWindow(t *testing.T) {
	c := teststream.NewContext(t, runtime.Options{Transports: []transport.Transport{sshttp.New(sshttp.Server)}}, serverType(policy.ProtocolH2))
	wrote := make(chan error, 1)
	s, err := c.Handle("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		_, err := w.Write(make([]byte, 1<<20))
		wrote <- err
	}), runtime.WithLimits(runtime.Limits{IdleTimeout: 100 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	p := dialH2(t, s)
	p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.head, EndHeaders: true, EndStream: true})
	go func() {
		for {
			if _, err := p.ReadFrame(); err != nil {
				return
			}
		}
	}()
	alive, limit := time.NewTicker(20*time.Millisecond), time.After(10*time.Second)
	defer alive.Stop()
	for {
		select {
		case err := <-wrote:
			if err == nil {
				t.Error("the answer was written")
			}
			return
		case <-alive.C:
			p.WritePing(false, [8]byte{})
		case <-limit:
			t.Fatal("the handler still waits")
		}
	}
}
