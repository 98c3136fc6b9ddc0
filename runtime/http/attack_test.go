package http_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/secure-streams/sspolicy/internal/testcert"
	"github.com/secure-streams/sspolicy/internal/testserver"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// An attack is a hostile server. on is called for each request of a connection, and may
// write until the connection is closed.
type attack struct {
	name   string
	h1     func(c net.Conn)
	h2     func(c *frameConn, stream uint32)
	quirk  bool   // the policy says h2q_oflow_txcr
	want   string // part of the error; "" if the request must succeed
	method string
	ended  chan struct{} // gets a value when h2 has returned
}

// flood writes a frame repeatedly.
func flood(write func(c *frameConn, stream uint32) error) func(*frameConn, uint32) {
	return func(c *frameConn, stream uint32) {
		for write(c, stream) == nil {
		}
	}
}

const carriesNothing = "a flood of frames that carry nothing (ENHANCE_YOUR_CALM)"

var attacks = []attack{
	{name: "window of a stream", h2: func(c *frameConn, stream uint32) {
		c.answer(stream, false)
		for range 2 {
			c.WriteWindowUpdate(stream, 1<<31-1)
		}
	}, want: "WINDOW_UPDATE beyond 2147483647 for the stream, see h2q_oflow_txcr"},
	{name: "window of a stream, tolerated", quirk: true, h2: func(c *frameConn, stream uint32) {
		for range 2 {
			c.WriteWindowUpdate(stream, 1<<31-1)
		}
		c.answer(stream, true)
	}},
	{name: "window of the connection", h2: func(c *frameConn, stream uint32) {
		for range 2 {
			c.WriteWindowUpdate(0, 1<<31-1)
		}
	}, want: "WINDOW_UPDATE beyond 2147483647, see h2q_oflow_txcr (FLOW_CONTROL_ERROR)"},
	{name: "window of the connection, tolerated", quirk: true, h2: func(c *frameConn, stream uint32) {
		for range 2 {
			c.WriteWindowUpdate(0, 1<<31-1)
		}
		c.answer(stream, true)
	}},
	{name: "window of the settings", h2: func(c *frameConn, stream uint32) {
		c.WriteWindowUpdate(stream, 1<<30)
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	}, want: "SETTINGS that make a window too large (FLOW_CONTROL_ERROR)"},
	{name: "PING", want: carriesNothing,
		h2: flood(func(c *frameConn, _ uint32) error { return c.WritePing(false, [8]byte{}) })},
	{name: "SETTINGS", want: carriesNothing,
		h2: flood(func(c *frameConn, _ uint32) error { return c.WriteSettings() })},
	{name: "settings within SETTINGS", want: carriesNothing,
		h2: flood(func(c *frameConn, _ uint32) error {
			return c.WriteSettings(make([]http2.Setting, 2000)...)
		})},
	{name: "PRIORITY", want: carriesNothing,
		h2: flood(func(c *frameConn, stream uint32) error {
			return c.WritePriority(stream, http2.PriorityParam{StreamDep: 77})
		})},
	{name: "unknown frames", want: carriesNothing,
		h2: flood(func(c *frameConn, _ uint32) error { return c.WriteRawFrame(0xbb, 0, 0, []byte("hello")) })},
	{name: "WINDOW_UPDATE", want: carriesNothing, quirk: true,
		h2: flood(func(c *frameConn, _ uint32) error { return c.WriteWindowUpdate(0, 1) })},
	{name: "empty DATA", want: carriesNothing,
		h2: func(c *frameConn, stream uint32) {
			c.answer(stream, false)
			flood(func(c *frameConn, stream uint32) error { return c.WriteData(stream, false, nil) })(c, stream)
		}},
	{name: "empty CONTINUATION", want: carriesNothing,
		h2: func(c *frameConn, stream uint32) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream})
			flood(func(c *frameConn, stream uint32) error { return c.WriteContinuation(stream, false, nil) })(c, stream)
		}},
	{name: "CONTINUATION", want: "headers that are too long",
		h2: func(c *frameConn, stream uint32) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}})
			flood(func(c *frameConn, stream uint32) error {
				return c.WriteContinuation(stream, false, bytes.Repeat([]byte{0x88}, 16<<10))
			})(c, stream)
		}},
	{name: "interim responses", want: carriesNothing,
		h2: flood(func(c *frameConn, stream uint32) error { return c.headers(stream, false, ":status", "103") })},
	{name: "RST_STREAM", want: "the server has ",
		h2: flood(func(c *frameConn, stream uint32) error { return c.WriteRSTStream(stream, http2.ErrCodeCancel) })},
	{name: "GOAWAY", want: "the server refuses the request each time",
		h2: flood(func(c *frameConn, _ uint32) error { return c.WriteGoAway(0, http2.ErrCodeNo, []byte("\x1b]0;x\a")) })},
	{name: "HEADERS of no stream", want: "a frame for stream 7, which is not open",
		h2: flood(func(c *frameConn, _ uint32) error { return c.headers(7, false, ":status", "200") })},
	{name: "PUSH_PROMISE", want: "PUSH_PROMISE", h2: func(c *frameConn, stream uint32) {
		c.WritePushPromise(http2.PushPromiseParam{StreamID: stream, PromiseID: 2, EndHeaders: true})
	}},
	{name: "DATA before HEADERS", want: "a body before the headers", h2: func(c *frameConn, stream uint32) {
		c.WriteData(stream, true, []byte("\x1b[31m"))
	}},
	{name: "DATA for HEAD", method: "HEAD", want: "a body longer than its content-length", h2: func(c *frameConn, stream uint32) {
		c.answer(stream, false)
		c.WriteData(stream, true, []byte("x"))
	}},
	{name: "DATA beyond the window", want: "more than the window of a stream", h2: func(c *frameConn, stream uint32) {
		c.WriteRawFrame(http2.FrameSettings, 0, 0, nil)
		c.answer(stream, false)
		// The reader is slow: TestAttacks does not read.
		flood(func(c *frameConn, stream uint32) error { return c.WriteData(stream, false, make([]byte, 16<<10)) })(c, stream)
	}},
	{name: "bytes", want: "does not speak h2", h2: func(c *frameConn, _ uint32) {}},

	{name: "interim responses", h1: func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 103 \r\nLink: </x>\r\n\r\n"); err != nil {
				return
			}
		}
	}, want: "the headers of the response are longer than 262144 bytes"},
	{name: "headers", h1: func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for {
			if _, err := io.WriteString(c, "X: y\r\n"); err != nil {
				return
			}
		}
	}, want: "the headers of the response are longer than 262144 bytes"},
	{name: "extensions of chunks", h1: func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			if _, err := io.WriteString(c, "1;"+strings.Repeat("x", 1000)+"\r\nx\r\n"); err != nil {
				return
			}
		}
	}, want: "too much non-data"},
	{name: "trailers", h1: func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
		for {
			if _, err := io.WriteString(c, "X: y\r\n"); err != nil {
				return
			}
		}
	}, want: "trailer"},
	{name: "control characters in headers", h1: func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX: \x1b[31m\r\n\r\n")
	}, want: "malformed MIME header"},
	{name: "control characters", h1: func(c net.Conn) {
		io.WriteString(c, "\x1b[31m\x1b]0;title\a HTTP\r\n\r\n")
	}, want: `malformed HTTP`},
	{name: "second response", h1: func(c net.Conn) {
		io.WriteString(c, strings.Repeat("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\x1b[31m", 2))
	}},
}

// headers sends headers, given as names and values.
func (c *frameConn) headers(stream uint32, end bool, fields ...string) error {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

// start runs the hostile server with TLS.
func (a attack) start(t testing.TB, config *tls.Config) netip.AddrPort {
	ln := testserver.Listen(t)
	testserver.Serve(t, tls.NewListener(ln, config), func(conn net.Conn) {
		r := bufio.NewReader(conn)
		out := batchConn{conn, bufio.NewWriterSize(conn, 16<<10)}
		if a.h1 != nil {
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				a.h1(out)
				out.w.Flush()
			}
		}
		if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		if a.name == "bytes" {
			io.WriteString(conn, strings.Repeat("\x1b[31m", 1000))
			return
		}
		c := &frameConn{Conn: conn, Framer: http2.NewFramer(out, r)}
		c.WriteSettings()
		out.w.Flush()
		requests := make(chan uint32, 100)
		go func() { // continue to read during a flood, which must not block
			defer close(requests)
			for {
				f, err := c.ReadFrame()
				if err != nil {
					return
				}
				if f, ok := f.(*http2.HeadersFrame); ok {
					requests <- f.StreamID
				}
			}
		}()
		for stream := range requests {
			a.h2(c, stream)
			out.w.Flush()
			select {
			case a.ended <- struct{}{}:
			default:
			}
		}
	})
	return testserver.Addr(ln)
}

// A batchConn batches writes, so that a flood takes few system calls.
type batchConn struct {
	net.Conn
	w *bufio.Writer
}

func (c batchConn) Write(p []byte) (int, error) { return c.w.Write(p) }

// run makes requests to the hostile server and, after each, to a good one in the same
// context and trust store. It writes warnings to log.
func (a attack) run(t testing.TB, requests int, log *bytes.Buffer) {
	const limit = time.Minute // of a busy machine
	own := testcert.New("own")
	protocol, alpn := policy.ProtocolH2, "h2"
	if a.h1 != nil {
		protocol, alpn = policy.ProtocolH1, "http/1.1"
	}
	config := own.Server([]string{alpn}, "127.0.0.1")
	a.ended = make(chan struct{}, 1)
	bad := a.start(t, own.Server([]string{alpn}, "127.0.0.1"))
	ln := testserver.Listen(t)
	hs := &http.Server{Handler: status(200, "good"), TLSConfig: config, Protocols: testserver.Protocols(true, false)}
	hs.Protocols.SetHTTP2(true)
	testserver.HTTP(t, tls.NewListener(ln, config), hs)
	var types []*policy.StreamType
	for name, addr := range map[string]netip.AddrPort{"good": testserver.Addr(ln), "bad": bad} {
		types = append(types, &policy.StreamType{Name: name, Protocol: protocol, TLS: true, TrustStore: own.Store(), Opportunistic: true,
			Endpoint: addr.Addr().String(), Port: addr.Port(), Retry: &policy.Retry{Conceal: 0},
			HTTP: &policy.HTTP{Method: a.method, H2OverflowTxCr: a.quirk}})
	}
	types[0].TrustStore = types[1].TrustStore
	c := newPolicy(t, types, runtime.Options{ConnectTimeout: limit, Logger: slog.New(slog.NewTextHandler(log, nil))})
	var before, after goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&before)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	for i := range requests {
		if a.name == "DATA beyond the window" {
			a.unread(t, c)
			break
		}
		_, err := c.Fetch(ctx, "bad", runtime.WithLimit(1<<20))
		if i == 0 && (a.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), a.want) {
			t.Errorf("the error of request %d is %v, want %q", i, err, a.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\a\r\n") {
			t.Errorf("the error has control characters: %q", err)
		}
		if r, err := c.Fetch(ctx, "good"); err != nil || a.method == "" && string(r.Body) != "good" {
			t.Errorf("the good server: %v, %v", r, err)
		}
	}
	if d := time.Since(start); d > limit {
		t.Errorf("it took %v", d)
	}
	goruntime.ReadMemStats(&after)
	// The attacker runs in the same process.
	if more := int64(after.Sys) - int64(before.Sys); more > 64<<20 {
		t.Errorf("the memory has grown by %d MB", more>>20)
	}
	// Neither Destroy nor Shutdown waits for the server.
	for i := range 2 {
		s, err := c.NewStream("bad", runtime.Handlers{})
		if err != nil {
			t.Fatal(err)
		}
		s.Connect()
		if i == 0 {
			s.Destroy()
		}
	}
	start = time.Now()
	if err := c.Shutdown(ctx); err != nil || time.Since(start) > 3*time.Second {
		t.Errorf("Shutdown: %v after %v", err, time.Since(start))
	}
}

// unread makes a request and does not read its response body.
func (a attack) unread(t testing.TB, c *runtime.Context) {
	failed := make(chan error, 1)
	s, err := c.NewStream("bad", runtime.Handlers{State: func(s *runtime.Stream, state runtime.State, _ uint32) runtime.Result {
		switch state {
		case runtime.StateConnected:
			s.PauseRx()
			go func() { <-a.ended; s.ResumeRx() }() // the connection is closed
		case runtime.StateDisconnected, runtime.StateUnreachable:
			failed <- s.Err()
		}
		return runtime.OK
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Connect()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), a.want) {
		t.Errorf("the error is %v, want %q", err, a.want)
	}
}

// TestAttacks checks that requests to a hostile server fail without affecting a good one or
// the end of the context.
func TestAttacks(t *testing.T) {
	for _, a := range attacks {
		protocol := "h2 "
		if a.h1 != nil {
			protocol = "h1 "
		}
		t.Run(protocol+a.name, func(t *testing.T) {
			var log bytes.Buffer
			a.run(t, 2, &log)
			if n := strings.Count(log.String(), "\n"); n > 3 {
				t.Errorf("%d lines in the log: %.1000s", n, &log)
			}
		})
	}
}

// attackVar makes the test binary run all attacks with the standard logger.
const attackVar = "SSPOLICY_TEST_ATTACKS"

// TestAttacksStderr checks that text of a server does not bypass the logger and reach
// standard error.
func TestAttacksStderr(t *testing.T) {
	if os.Getenv(attackVar) != "" {
		for _, a := range attacks {
			a.run(t, 1, new(bytes.Buffer))
		}
		return
	}
	if testing.Short() {
		t.Skip("runs all attacks")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestAttacksStderr$")
	cmd.Env = append(os.Environ(), attackVar+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil || stderr.Len() > 0 {
		t.Errorf("%v\nstandard error: %.2000s\n%s", err, &stderr, out)
	}
}
